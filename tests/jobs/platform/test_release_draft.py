from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.platform.release_draft import new_draft
from jobs.platform.warehouse import Warehouse
from tests.tiny_release import make


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse"))


def test_same_content_same_id_and_other_content_another(wh: Warehouse) -> None:
    first = make(wh, "2020-01-05")
    stamp = (first.local() / "manifest.json").stat().st_mtime_ns
    again = make(wh, "2020-01-05")
    assert again.id == first.id
    assert (first.local() / "manifest.json").stat().st_mtime_ns == stamp, "the published folder was written again"
    assert make(wh, "2020-01-05", "two").id != first.id
    assert make(wh, "2020-01-06").id[10:] != first.id[10:]
    names = sorted(path.name for path in (Path(wh.uri) / "releases").iterdir())
    assert len(names) == 3 and not any("staging" in name for name in names)


def test_failed_draft_leaves_nothing(wh: Warehouse) -> None:
    with pytest.raises(RuntimeError), new_draft(wh) as draft:
        (draft.folder / "half").write_text("x")
        raise RuntimeError
    assert list((Path(wh.uri) / "releases").iterdir()) == []


def test_draft_of_a_killed_publish_is_removed_after_a_day(wh: Warehouse) -> None:
    left = Path(wh.uri) / "releases" / ".staging-0123"
    (left / "items").mkdir(parents=True)
    make(wh, "2020-01-05")
    assert left.exists()  # it may still be at work
    for path in (left / "items", left):
        os.utime(path, (0, 0))
    make(wh, "2020-01-06")
    assert not left.exists()


def test_all_of_a_release_is_durable_before_it_is_there(wh: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, sync = set(), os.fsync

    def seen(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    folder = make(wh, "2020-01-05").local()
    assert {path.stat().st_ino for path in (folder, *folder.rglob("*"))} <= synced
