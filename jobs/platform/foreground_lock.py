"""Whether a run in the foreground works on a warehouse: a lock that the kernel takes back when its processes end.

It lies in the state folder, so it is seen by all that share that folder, on one machine.
"""

from __future__ import annotations

import fcntl
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.platform.errors import JobError
from jobs.platform.local import state_folder
from jobs.platform.warehouse import Warehouse


def _path(warehouse: Warehouse) -> Path:
    return state_folder() / "run" / f"foreground-{zlib.crc32(warehouse.uri.encode()):08x}.lock"


def holder(warehouse: Warehouse) -> str | None:
    """Return the day that a foreground run refreshes in ``warehouse`` just now, None if there is none."""
    try:
        with _path(warehouse).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "another day"  # it has the lock, but has not written its day yet
    except FileNotFoundError:
        pass
    return None


@contextmanager
def hold(warehouse: Warehouse, ds: str) -> Iterator[int]:
    """Hold ``warehouse`` for the run of day ``ds``.

    Yields
    ------
    int
        Descriptor of the lock; a child that inherits it holds the warehouse too, should this process be killed.

    Raises
    ------
    JobError
        If another foreground run holds it.
    """
    path = _path(warehouse)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JobError(
                f"warehouse {warehouse.uri}: seen a foreground run of {path.read_text()} at work; "
                "allowed: one run at a time; wait for its end, or stop it"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, ds.encode())
        yield descriptor
    finally:
        os.close(descriptor)
