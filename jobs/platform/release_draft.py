"""A release in the making: a folder that is filled, sealed under an id, and moved to its place."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.platform.manifest import (
    FOLDER,
    FORMAT,
    MANIFEST,
    ReleaseError,
    check_id,
    manifest_bytes,
    manifest_digest,
)
from jobs.platform.releases import Release
from jobs.platform.storage import make_durable
from jobs.platform.warehouse import Warehouse

_STAGING = ".staging-"


@dataclass(frozen=True, slots=True)
class Draft:
    """A release in the making: fill `folder`, then `seal` it."""

    warehouse: Warehouse
    folder: Path

    def seal(self, ds: str, parent: str | None, facts: dict[str, Any]) -> Release:
        """Hash what `folder` holds, name it, and move it to its place; `CURRENT` is left alone.

        Parameters
        ----------
        ds : str
            Day of the release.
        parent : str or None
            Id of the release before.
        facts : dict
            What else the manifest says (JSON values, nothing that differs between two runs on the same
            inputs).

        Returns
        -------
        Release
            Checked. An undamaged release of the same content that exists already is left as it is.
        """
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = {path.relative_to(self.folder).as_posix(): path for path in paths}
        files = {name: {"bytes": path.stat().st_size, "sha256": _hash_file(path)} for name, path in names.items()}
        manifest = {**facts, "format": FORMAT, "ds": ds, "parent": parent, "files": files}
        release_id = check_id(f"{ds}-{manifest_digest(manifest)}")
        (self.folder / MANIFEST).write_bytes(manifest_bytes({**manifest, "id": release_id}))
        # CURRENT must never outlive what it points to.
        for path in (self.folder / MANIFEST, *(path for path in self.folder.rglob("*") if path.is_dir()), self.folder):
            make_durable(path)
        try:
            return Release.open(self.warehouse, release_id, full=True)
        except ReleaseError:
            self._move(release_id)
        return Release.open(self.warehouse, release_id)

    def _move(self, release_id: str) -> None:
        storage, place = self.warehouse.storage, f"{FOLDER}/{release_id}"
        storage.remove(place)  # what is there is damaged
        if storage.local is not None:
            self.folder.rename(storage.local / place)
            return
        # An object store has no rename: the manifest goes last, and without one there is no release.
        manifest = (self.folder / MANIFEST).read_bytes()
        (self.folder / MANIFEST).unlink()
        storage.upload(self.folder, place)
        storage.replace(f"{place}/{MANIFEST}", manifest)


@contextmanager
def new_draft(warehouse: Warehouse) -> Iterator[Draft]:
    """An empty draft; whatever is not sealed at the end is removed."""
    root = warehouse.storage.local
    if root is None:
        folder = Path(tempfile.mkdtemp(prefix="hymirec-release-"))
    else:  # on the same disk, so that sealing is a rename; the dot keeps it out of listings
        folder = root / FOLDER / f"{_STAGING}{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        for name in warehouse.storage.folders(FOLDER):
            if name.startswith(_STAGING) and warehouse.storage.abandoned(f"{FOLDER}/{name}"):
                warehouse.storage.remove(f"{FOLDER}/{name}")  # its publish was killed
    try:
        yield Draft(warehouse, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hash_file(path: Path) -> str:
    make_durable(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
