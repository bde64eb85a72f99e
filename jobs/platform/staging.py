"""An import takes effect at once: its tables are written beside the old ones, and then put in their places.

Everything is written to ``.import/ID``. When it is complete, ``_complete.json`` names what is to be put where; from
then on the import counts, even if its process dies while it moves folders: whoever imports next finishes that first.
What was not complete is as if it had never been, and is removed a day later.
"""

from __future__ import annotations

import fcntl
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.platform.names import ds_of
from jobs.platform.storage import Storage

FOLDER = ".import"  # a name that no listing of tables or data shows
_COMPLETE = "_complete.json"


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
        storage.replace(f"{folder}/{_COMPLETE}", json.dumps(targets).encode())
        _finish(storage, folder)


def _targets(storage: Storage, folder: str) -> list[str]:
    days = [f"events/{name}" for name in storage.folders(f"{folder}/events") if ds_of(name)]
    records = [f"imports/{name}" for name in storage.folders(f"{folder}/imports")]
    return [name for name in storage.folders(folder) if name == "items"] + days + records


def _finish(storage: Storage, folder: str) -> None:
    """Put everything of a complete import in its place; what is there already stays."""
    targets = json.loads(storage.read(f"{folder}/{_COMPLETE}") or b"{}")
    for target, names in targets.items():
        storage.put(f"{folder}/{target}", target, names)
    for parent in {target.rpartition("/")[0] for target in targets}:
        storage.sync(parent)
    storage.remove(folder)


def _finish_others(storage: Storage) -> None:
    for name in storage.folders(FOLDER):
        folder = f"{FOLDER}/{name}"
        if storage.existing([f"{folder}/{_COMPLETE}"])[0]:
            _finish(storage, folder)
        elif storage.abandoned(folder):
            storage.remove(folder)


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
