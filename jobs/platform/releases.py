"""Releases: what a retrieval service loads. One release is one immutable folder, and one small file names the
current one.

::

    releases/<id>/manifest.json   every file with its bytes and SHA-256, row counts, shapes, where it came from
    releases/<id>/…               encoder, item_space, recommender, codebook, items, interests, index, evaluation
    releases/CURRENT              the id of the release to load, replaced atomically
    releases/switches/…           who switched CURRENT, when and why

The id is the day and the first 8 hex digits of the manifest's SHA-256, so equal content has an equal id, and
a manifest vouches for all files beside it. A reader opens one id and gets parts of that release or an error,
never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform.errors import JobError
from jobs.platform.warehouse import Warehouse

FORMAT = 1
MANIFEST = "manifest.json"
FOLDER = "releases"
_CURRENT = f"{FOLDER}/CURRENT"
_STAGING = ".staging-"
_ID = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{8}")
_CHUNK = 1 << 20
_SHOWN = 3  # faults that an error message names


class ReleaseError(JobError):
    """A release is missing or damaged, or its id is not one."""


class NoRelease(ReleaseError):
    """There is no release of this id, or none any more."""


@dataclass(frozen=True, slots=True)
class Release:
    """An open release; get one from `Release.open`."""

    warehouse: Warehouse
    id: str
    manifest: dict[str, Any]

    @classmethod
    def open(cls, warehouse: Warehouse | str, release_id: str | None = None, *, full: bool = False) -> Release:
        """Open a release after checking it.

        Parameters
        ----------
        warehouse : Warehouse or str
            The warehouse, or its URI.
        release_id : str, optional
            Default: the current release.
        full : bool, default=False
            Compare the SHA-256 of every file. Without it: the manifest's own hash, the names and bytes of all
            files.

        Returns
        -------
        Release

        Raises
        ------
        ReleaseError
            If there is no such release, or it is damaged, or files of another are mixed in.
        """
        wh = Warehouse(warehouse) if isinstance(warehouse, str) else warehouse
        name = check_id(release_id if release_id is not None else _current(wh))
        release = cls(wh, name, _read_manifest(wh, name))
        faults = release._faults(full)
        if faults:
            more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise ReleaseError(
                f"release {name} is damaged: {'; '.join(faults[:_SHOWN])}{more}; "
                "restore the folder or publish the day again"
            )
        return release

    @property
    def ds(self) -> str:
        """Day of the release."""
        return str(self.manifest["ds"])

    @property
    def parent(self) -> str | None:
        """Id of the release before."""
        return None if self.manifest["parent"] is None else str(self.manifest["parent"])

    def files(self, part: str) -> list[str]:
        """Names of the files of a part ("items", "interests", …), sorted."""
        return sorted(name for name in self.manifest["files"] if name.startswith(f"{part}/"))

    def part_bytes(self) -> dict[str, int]:
        """Bytes of each part, in the order of their names."""
        sizes: dict[str, int] = {}
        for name, about in sorted(self.manifest["files"].items()):
            part = name.split("/")[0]
            sizes[part] = sizes.get(part, 0) + about["bytes"]
        return sizes

    def local(self) -> Path:
        """The release as a folder of this machine: itself when local, else a cached download."""
        return self.warehouse.local_folder(f"{FOLDER}/{self.id}")

    def table(self, part: str, columns: list[str] | None = None) -> pa.Table:
        """A part that is made of Parquet files, as one table."""
        names = [name for name in self.files(part) if name.endswith(".parquet")]
        if not names:
            raise ReleaseError(f"release {self.id}: seen no table {part!r}; allowed: items, interests")
        storage = self.warehouse.storage
        paths = [storage.path(FOLDER, self.id, name) for name in names]
        return pa.concat_tables(
            pq.read_table(path, columns=columns, filesystem=storage.filesystem, partitioning=None) for path in paths
        )

    def _faults(self, full: bool) -> list[str]:
        expected: dict[str, dict[str, Any]] = self.manifest["files"]
        found = self.warehouse.storage.files(f"{FOLDER}/{self.id}")
        found.pop(MANIFEST, None)
        faults = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        faults += [f"{name} does not belong to it" for name in sorted(found.keys() - expected.keys())]
        for name in sorted(expected.keys() & found.keys()):
            if found[name] != expected[name]["bytes"]:
                faults.append(f"{name} has {found[name]:,} bytes instead of {expected[name]['bytes']:,}")
            elif full and self._sha256(name) != expected[name]["sha256"]:
                faults.append(f"{name} has other content than the manifest says")
        return faults

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        storage = self.warehouse.storage
        with storage.filesystem.open_input_stream(storage.path(FOLDER, self.id, name)) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()


def check_id(release_id: str) -> str:
    """Return ``release_id`` if it is an id, else raise ReleaseError; this also keeps paths like ``../x``
    out."""
    if not _ID.fullmatch(release_id):
        raise ReleaseError(f"release id: seen {release_id!r}; allowed: a day and 8 hex digits, 2017-12-24-0123abcd")
    return release_id


def current_id(warehouse: Warehouse) -> str | None:
    """Id of the current release, None before the first one."""
    raw = warehouse.storage.read(_CURRENT)
    return None if raw is None else check_id(raw.decode("utf-8", "replace").strip())


def switch(release: Release) -> None:
    """Make a release the current one, in one atomic step."""
    release.warehouse.storage.replace(_CURRENT, f"{release.id}\n".encode())


def before(warehouse: Warehouse, ds: str) -> Release | None:
    """The newest release of an earlier day, going back from the current one as far as releases are kept.

    A rerun of the current release's day finds the same one as the first run did.
    """
    name = current_id(warehouse)
    while name is not None:
        try:
            manifest = _read_manifest(warehouse, name)
        except NoRelease:
            if name == current_id(warehouse):
                raise
            return None
        if manifest["ds"] < ds:
            return Release.open(warehouse, name)
        name = manifest["parent"]
    return None


def all_ids(warehouse: Warehouse) -> list[str]:
    """Ids of the releases that are there, oldest day first."""
    return [name for name in warehouse.storage.folders(FOLDER) if _ID.fullmatch(name)]


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
        release_id = check_id(f"{ds}-{_digest(manifest)}")
        (self.folder / MANIFEST).write_bytes(_canonical({**manifest, "id": release_id}))
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
def draft(warehouse: Warehouse) -> Iterator[Draft]:
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


def _current(warehouse: Warehouse) -> str:
    name = current_id(warehouse)
    if name is None:
        raise ReleaseError(f"{warehouse.uri}: seen no current release; run the DAG or the publish job first")
    return name


def _read_manifest(warehouse: Warehouse, release_id: str) -> dict[str, Any]:
    raw = warehouse.storage.read(f"{FOLDER}/{check_id(release_id)}/{MANIFEST}")
    if raw is None:
        raise NoRelease(f"release {release_id}: seen no manifest; allowed: a published release of {warehouse.uri}")
    try:
        manifest: dict[str, Any] = json.loads(raw)
        names = [PurePosixPath(name) for name in manifest["files"]]
        body = {key: value for key, value in manifest.items() if key != "id"}
        vouched = manifest["id"] == release_id == f"{manifest['ds']}-{_digest(body)}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"release {release_id}: the manifest cannot be read ({error!r}); restore it") from error
    if not vouched:
        raise ReleaseError(f"release {release_id}: the manifest is not this release's or was changed; restore it")
    if manifest["format"] != FORMAT:
        raise ReleaseError(f"release {release_id}: seen format {manifest['format']!r}; allowed: {FORMAT}")
    if any(name.is_absolute() or ".." in name.parts for name in names):
        raise ReleaseError(f"release {release_id}: the manifest names files outside of its folder; do not use it")
    return manifest


def _canonical(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(manifest)).hexdigest()[:8]


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        os.fsync(file.fileno())  # CURRENT must never outlive what it points to
        return hashlib.file_digest(file, "sha256").hexdigest()
