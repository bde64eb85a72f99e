"""Names of tables, days and buckets: checked, so that no name leads out of the warehouse; and words of the options."""

from __future__ import annotations

import datetime
import re
import zlib
from pathlib import PurePosixPath
from typing import Literal, get_args

from jobs.platform.errors import WarehouseError

Retrain = Literal["auto", "always", "never"]
RETRAIN: tuple[str, ...] = get_args(Retrain)
"""Whether models are trained: when they are due, today, or not at all."""
Promote = Literal["auto", "dry-run", "never"]
PROMOTE: tuple[str, ...] = get_args(Promote)
"""What becomes of a release that passes the gate: it becomes the current one, is not even written, or only written."""
Recode = Literal["auto", "always"]
RECODE: tuple[str, ...] = get_args(Recode)
"""Whether all items get codes of a new book: when that is due, or today."""

Drift = Literal["stop", "accept", "restart"]
DRIFT: tuple[str, ...] = get_args(Drift)
"""What becomes of a day unlike those before it: it stops the run, is an exception, or the new normal."""


def is_day(text: str) -> bool:
    """Tell whether ``text`` is a day written YYYY-MM-DD."""
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def check_ds(ds: str) -> str:
    """Return ``ds`` if it is a day, else raise WarehouseError."""
    if not is_day(ds):
        raise WarehouseError(f"ds: seen {ds!r}; allowed: a day written YYYY-MM-DD")
    return ds


def check_table(table: str) -> str:
    """Return ``table`` if it may be the name of a table, else raise WarehouseError."""
    if not re.fullmatch(r"[a-z][a-z_]*", table):
        raise WarehouseError(f"table name: seen {table!r}; allowed: lower-case letters and _")
    return table


def check_pointer(where: str, pointer: object) -> None:
    """Check what tells a partition's attempt and files: a name in it must not lead out of the partition.

    Raises
    ------
    WarehouseError
        If it is not what a writer leaves.
    """
    good = isinstance(pointer, dict) and {"folder", "previous", "rows", "files", "info"} <= pointer.keys()
    if good and isinstance(pointer, dict):
        names = [pointer["folder"], *([] if pointer["previous"] is None else [pointer["previous"]])]
        good = all(isinstance(name, str) and re.fullmatch(r"[0-9a-f]{32}", name) for name in names)
        good = good and isinstance(pointer["files"], dict) and isinstance(pointer["info"], dict)
        good = good and not any(is_outside(name) for name in pointer["files"])
    if not good:
        raise WarehouseError(
            f"{where}: seen content that no job writes; allowed: an attempt of 32 hex digits and files inside it; "
            "rerun the job that writes it"
        )


def is_outside(name: str) -> bool:
    """Tell whether a file's name relative to a folder leads out of that folder."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def ds_of(folder: str) -> str | None:
    """Day of a folder named ``ds=YYYY-MM-DD``; None for any other name."""
    name, _, day = folder.partition("=")
    return day if name == "ds" and is_day(day) else None


def bucket_of(user_id: str, buckets: int) -> str:
    """Folder of a user's row in a table of ``buckets`` folders, as update_histories spreads them."""
    return f"bucket={zlib.crc32(user_id.encode()) % buckets:03d}"
