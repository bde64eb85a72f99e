"""Folders of a remote warehouse on this machine: downloaded once, kept while somebody asks for them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from pathlib import Path

from jobs.platform.local import state_folder
from jobs.platform.storage import Storage

KEEP_DAYS = 7
_SHAPES = ("*/ds=*/*", "releases/*")
"""Folders that are asked for: attempts of partitions, and releases."""


def local_copy(storage: Storage, folder: str) -> Path:
    """Folder in HYMIREC_CACHE with the files of ``folder``, which never changes.

    A download removes those of the same warehouse that nobody has asked for in ``KEEP_DAYS`` days: attempts that others
    have replaced, and releases that are retired.
    """
    cache = Path(os.environ.get("HYMIREC_CACHE") or state_folder() / "cache")
    own = cache / hashlib.sha256(storage.uri.encode()).hexdigest()[:16]
    target = own / folder
    if not target.exists():
        _forget(own, time.time() - KEEP_DAYS * 86400)
        storage.download(folder, target)
    with contextlib.suppress(OSError):  # another user's cache, which this one may read
        os.utime(target)
    return target


def _forget(cache: Path, before: float) -> None:
    for path in (path for shape in _SHAPES for path in cache.glob(shape)):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            if path.stat().st_mtime < before:
                gone = path.rename(path.with_name(f".{path.name}.{uuid.uuid4().hex}"))  # at once, not file by file
                shutil.rmtree(gone, ignore_errors=True)
