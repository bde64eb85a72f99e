from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from jobs.platform.manifest import FORMAT, ReleaseError
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.tiny_release import make


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse"))


@pytest.mark.parametrize("edit", ['"bytes": 4', '"bytes": "x"'])
def test_changed_manifest_is_refused(wh: Warehouse, edit: str) -> None:
    made = make(wh, "2020-01-05")
    path = made.local() / "manifest.json"
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


@pytest.mark.parametrize(
    ("form", "file", "message"),
    [
        (FORMAT, "../../secret", "outside of its folder"),
        (FORMAT - 1, "items/a", f"seen format {FORMAT - 1}; allowed: {FORMAT}; move the folder releases away"),
    ],
)
def test_manifests_of_another_kind_are_refused(wh: Warehouse, form: int, file: str, message: str) -> None:
    body = {"ds": "2020-01-05", "format": form, "parent": None, "files": {file: {"bytes": 1, "sha256": ""}}}
    digest = hashlib.sha256((json.dumps(body, indent=1, sort_keys=True) + "\n").encode()).hexdigest()[:8]
    place = Path(wh.uri) / "releases" / f"2020-01-05-{digest}"
    place.mkdir(parents=True)
    (place / "manifest.json").write_text(json.dumps({**body, "id": place.name}))
    with pytest.raises(ReleaseError, match=message):
        Release.open(wh, place.name)
