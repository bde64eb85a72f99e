from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from jobs.platform import releases
from jobs.platform.manifest import ReleaseError
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.tiny_release import make


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse"))


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
    manifest = json.loads((found.local() / "manifest.json").read_text())
    body = {key: value for key, value in manifest.items() if key != "id"}
    canonical = (json.dumps(body, indent=1, sort_keys=True) + "\n").encode()
    assert found.id == f"2020-01-05-{hashlib.sha256(canonical).hexdigest()[:8]}"
    assert (Path(wh.uri) / "releases" / "CURRENT").read_text() == f"{found.id}\n"


def test_damage_is_found_and_sealing_again_repairs_it(wh: Warehouse) -> None:
    made = make(wh, "2020-01-05")
    index = made.local() / "index" / "index.faiss"
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
    stray = first.local() / "items" / "part-00001.parquet"
    stray.write_bytes((second.local() / "items" / "part-00000.parquet").read_bytes())
    with pytest.raises(ReleaseError, match=r"items/part-00001\.parquet does not belong to it"):
        Release.open(wh, first.id)
    stray.unlink()
    (first.local() / "manifest.json").write_bytes((second.local() / "manifest.json").read_bytes())
    with pytest.raises(ReleaseError, match="the manifest is not this release's or was changed"):
        Release.open(wh, first.id)


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
