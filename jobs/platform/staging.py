"""An import takes effect at once: its tables are written beside the old ones, and then put in their places.

Everything is written to ``.import/ID``. When it is complete, ``_complete.json`` names what is to be put where; from
then on the import counts, even if its process dies while it moves folders: whoever imports next finishes that first,
and so does check_inputs, which waits for an import that is moving folders. Object stores have no lock that tells the
living from the dead: there only the next import finishes it, and check_inputs says so. What was not complete is as if
it had never been, and is removed a day later.
"""

from __future__ import annotations

import fcntl
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.platform.errors import ImportUnfinished
from jobs.platform.names import ds_of
from jobs.platform.storage import Storage

FOLDER = ".import"  # a name that no listing of tables or data shows
_MARK = "_complete.json"


@contextmanager
def staged(storage: Storage) -> Iterator[str]:
    """Stage an import; at a clean exit it takes effect, on an exception nothing of it is left.

    Yields
    ------
    str
        Folder, relative to the storage, whose folders ``items``, ``events/ds=DAY`` and ``imports/ID`` are to
        replace those of the warehouse.
    """
    folder = f"{FOLDER}/{uuid.uuid4().hex}"
    with _alone(storage):
        _finish_others(storage)
    try:
        yield folder
        storage.settle(folder)
    except BaseException:
        storage.remove(folder)
        raise
    with _alone(storage):
        _finish_others(storage)
        targets = {target: sorted(storage.files(f"{folder}/{target}")) for target in _targets(storage, folder)}
        storage.replace(f"{folder}/{_MARK}", json.dumps(targets).encode())
        _finish(storage, folder)


def finish_imports(storage: Storage) -> None:
    """Put complete imports in their places before somebody reads the input tables.

    Raises
    ------
    ImportUnfinished
        If they cannot be, or are in an object store.
    """
    waiting = _complete(storage)
    if not waiting:
        return
    if storage.local is None:
        raise ImportUnfinished(
            f"{waiting[0]}: seen an import that is complete but not all in its place; allowed: none; wait for it if it "
            "runs, or import the same files again, which finishes it; then run this again"
        )
    try:
        with _alone(storage):
            for folder in _complete(storage):
                _finish(storage, folder)
    except OSError as error:
        raise ImportUnfinished(
            f"{waiting[0]}: seen an import that is complete but cannot be put in its place ({error}); allowed: none; "
            "mend that and run this again"
        ) from error


def _targets(storage: Storage, folder: str) -> list[str]:
    days = [f"events/{name}" for name in storage.folders(f"{folder}/events") if ds_of(name)]
    records = [f"imports/{name}" for name in storage.folders(f"{folder}/imports")]
    return [name for name in storage.folders(folder) if name == "items"] + days + records


def _finish(storage: Storage, folder: str) -> None:
    """Put everything of a complete import in its place; what is there already stays."""
    targets = json.loads(storage.read(f"{folder}/{_MARK}") or b"{}")
    for target, names in targets.items():
        storage.put(f"{folder}/{target}", target, names)
    for parent in {target.rpartition("/")[0] for target in targets}:
        storage.sync(parent)
    storage.remove(folder)


def _finish_others(storage: Storage) -> None:
    complete = _complete(storage)
    for folder in complete:
        _finish(storage, folder)
    for folder in (f"{FOLDER}/{name}" for name in storage.folders(FOLDER)):
        if folder not in complete and storage.abandoned(folder):
            storage.remove(folder)


def _complete(storage: Storage) -> list[str]:
    """Folders of imports that count and are not all in their places."""
    folders = [f"{FOLDER}/{name}" for name in storage.folders(FOLDER)]
    there = storage.existing([f"{folder}/{_MARK}" for folder in folders]) if folders else []
    return [folder for folder, exists in zip(folders, there, strict=True) if exists]


@contextmanager
def _alone(storage: Storage) -> Iterator[None]:
    """Keep other imports from moving folders; the lock of a process that dies is free. Object stores have none."""
    if storage.local is None:
        yield
        return
    path = storage.local / FOLDER / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
