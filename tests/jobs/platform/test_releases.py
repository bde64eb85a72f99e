from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.platform import releases
from jobs.platform.releases import Release, ReleaseError
from jobs.platform.warehouse import Warehouse


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse"))


def make(wh: Warehouse, ds: str, word: str = "one", parent: str | None = None) -> Release:
    with releases.draft(wh) as draft:
        (draft.folder / "items").mkdir()
        pq.write_table(pa.table({"item_id": [word, "b"]}), draft.folder / "items" / "part-00000.parquet")
        (draft.folder / "index").mkdir()
        (draft.folder / "index" / "index.faiss").write_text(word)
        return draft.seal(ds, parent, {"rows": {"items": 2}})


def folder(release: Release) -> Path:
    return release.local()


def test_sealed_release_opens_with_all_it_holds(wh: Warehouse) -> None:
    made = make(wh, "2020-01-05")
    assert releases.current_id(wh) is None
    releases.switch(made)
    found = Release.open(wh.uri, full=True)
    assert (found.id, found.ds, found.parent) == (made.id, "2020-01-05", None)
    assert found.files("items") == ["items/part-00000.parquet"]
    assert found.table("items")["item_id"].to_pylist() == ["one", "b"]
    about = found.manifest["files"]["index/index.faiss"]
    assert about == {"bytes": 3, "sha256": hashlib.sha256(b"one").hexdigest()}
    manifest = json.loads((folder(found) / "manifest.json").read_text())
    body = {key: value for key, value in manifest.items() if key != "id"}
    canonical = (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()
    assert found.id == f"2020-01-05-{hashlib.sha256(canonical).hexdigest()[:8]}"
    assert (Path(wh.uri) / "releases" / "CURRENT").read_text() == f"{found.id}\n"


def test_same_content_same_id_and_other_content_another(wh: Warehouse) -> None:
    first = make(wh, "2020-01-05")
    stamp = (folder(first) / "manifest.json").stat().st_mtime_ns
    again = make(wh, "2020-01-05")
    assert again.id == first.id
    assert (folder(first) / "manifest.json").stat().st_mtime_ns == stamp, "the published folder was written again"
    assert make(wh, "2020-01-05", "two").id != first.id
    assert make(wh, "2020-01-06").id[10:] != first.id[10:]
    names = sorted(path.name for path in (Path(wh.uri) / "releases").iterdir())
    assert len(names) == 3 and not any("staging" in name for name in names)


def test_failed_draft_leaves_nothing(wh: Warehouse) -> None:
    with pytest.raises(RuntimeError), releases.draft(wh) as draft:
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


def test_damage_is_found_and_sealing_again_repairs_it(wh: Warehouse) -> None:
    made = make(wh, "2020-01-05")
    index = folder(made) / "index" / "index.faiss"
    index.write_text("two")
    assert Release.open(wh, made.id).id == made.id, "equal size: only a full check can tell"
    with pytest.raises(ReleaseError, match=r"index/index\.faiss has other content than the manifest says"):
        Release.open(wh, made.id, full=True)
    index.write_text("longer")
    with pytest.raises(ReleaseError, match=r"index/index\.faiss has 6 bytes instead of 3"):
        Release.open(wh, made.id)
    index.unlink()
    with pytest.raises(ReleaseError, match=r"index/index\.faiss is missing"):
        Release.open(wh, made.id)
    make(wh, "2020-01-05")
    assert Release.open(wh, made.id, full=True).id == made.id


def test_parts_of_another_release_are_refused(wh: Warehouse) -> None:
    first, second = make(wh, "2020-01-05"), make(wh, "2020-01-06", "two")
    stray = folder(first) / "items" / "part-00001.parquet"
    stray.write_bytes((folder(second) / "items" / "part-00000.parquet").read_bytes())
    with pytest.raises(ReleaseError, match=r"items/part-00001\.parquet does not belong to it"):
        Release.open(wh, first.id)
    stray.unlink()
    (folder(first) / "manifest.json").write_bytes((folder(second) / "manifest.json").read_bytes())
    with pytest.raises(ReleaseError, match="the manifest is not this release's or was changed"):
        Release.open(wh, first.id)


@pytest.mark.parametrize("edit", ['"bytes": 4', '"bytes": "x"'])
def test_changed_manifest_is_refused(wh: Warehouse, edit: str) -> None:
    made = make(wh, "2020-01-05")
    path = folder(made) / "manifest.json"
    path.write_text(path.read_text().replace('"bytes": 3', edit))
    with pytest.raises(ReleaseError, match="was changed"):
        Release.open(wh, made.id)
    path.write_text("{")
    with pytest.raises(ReleaseError, match="cannot be read"):
        Release.open(wh, made.id)
    path.unlink()
    with pytest.raises(ReleaseError, match="seen no manifest"):
        Release.open(wh, made.id)


@pytest.mark.parametrize("bad", ["../2020-01-05-01234567", "2020-01-05-0123456", "latest", "", "2020-01-05-0123456G"])
def test_ids_that_are_no_ids_are_refused(wh: Warehouse, bad: str) -> None:
    with pytest.raises(ReleaseError, match="release id: seen"):
        Release.open(wh, bad)
    (Path(wh.uri) / "releases").mkdir(parents=True)
    (Path(wh.uri) / "releases" / "CURRENT").write_text(bad)
    with pytest.raises(ReleaseError, match="release id: seen"):
        Release.open(wh)


def test_manifest_that_points_outside_is_refused(wh: Warehouse) -> None:
    body = {
        "ds": "2020-01-05",
        "format": 1,
        "parent": None,
        "files": {"../../secret": {"bytes": 1, "sha256": ""}},
    }
    digest = hashlib.sha256((json.dumps(body, indent=1, sort_keys=True) + "\n").encode()).hexdigest()[:8]
    place = Path(wh.uri) / "releases" / f"2020-01-05-{digest}"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({**body, "id": place.name}))
    with pytest.raises(ReleaseError, match="outside of its folder"):
        Release.open(wh, place.name)


def test_before_goes_back_to_an_earlier_day(wh: Warehouse) -> None:
    assert releases.before(wh, "2020-01-05") is None
    first = make(wh, "2020-01-05")
    second = make(wh, "2020-01-06", "two", parent=first.id)
    releases.switch(second)
    for ds, expected in (("2020-01-07", second.id), ("2020-01-06", first.id), ("2020-01-05", None)):
        found = releases.before(wh, ds)
        assert (found.id if found else None) == expected


def test_nothing_published_says_so(wh: Warehouse) -> None:
    with pytest.raises(ReleaseError, match="seen no current release"):
        Release.open(wh)


def test_a_warehouse_that_is_not_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYMIREC_CACHE", str(tmp_path / "cache"))
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    remote = Warehouse("s3://bucket/house", filesystem=SubTreeFileSystem(str(tmp_path), LocalFileSystem()))
    (tmp_path / "bucket" / "house" / "releases").mkdir(parents=True)
    made = make(remote, "2020-01-05")
    releases.switch(made)
    assert Release.open(remote, full=True).table("items")["item_id"].to_pylist() == ["one", "b"]
    copy = Release.open(remote).local()
    assert copy.is_relative_to(tmp_path / "cache") and (copy / "index" / "index.faiss").read_text() == "one"
    (tmp_path / "bucket" / "house" / "releases" / made.id / "manifest.json").unlink()
    with pytest.raises(ReleaseError, match="seen no manifest"):
        Release.open(remote)
