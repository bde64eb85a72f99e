"""People who asked to be deleted: the input table ``deletions``, which only grows.

It holds Parquet files with a column user_id. From the next refresh on, histories, interests and releases do not hold
these people, whatever the log still says of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.platform.errors import SchemaError, WarehouseError
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

TABLE, KEY = "deletions", "user_id"


@dataclass(frozen=True, slots=True)
class Deletions:
    """Everybody who asked, up to now."""

    user_ids: tuple[str, ...]
    """Distinct, in order."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits; empty when nobody has asked."""
        return _fingerprint(self.user_ids) if self.user_ids else ""


def read_deletions(wh: Warehouse) -> Deletions:
    """Everybody in the table; nobody if there is none.

    Raises
    ------
    WarehouseError
        If a file is not Parquet.
    SchemaError
        If a file has no column user_id of strings.
    """
    found: list[str] = []
    for name in sorted(name for name in wh.storage.files(TABLE) if name.endswith(".parquet")):
        try:
            table = pq.read_table(wh.storage.path(TABLE, name), filesystem=wh.filesystem, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise WarehouseError(
                f"{TABLE}/{name}: seen a file that is not Parquet ({error}); allowed: Parquet; write it again"
            ) from error
        kinds = {field.name: str(field.type) for field in table.schema}
        if kinds.get(KEY) not in ("string", "large_string"):
            seen = f"type {kinds[KEY]}" if KEY in kinds else f"no such column among {', '.join(kinds)}"
            raise SchemaError(TABLE, KEY, seen, "string", name)
        found += [str(user_id) for user_id in table[KEY].unique().drop_null().to_pylist()]
    return Deletions(tuple(sorted(set(found))))


def deleted_users(release: Release) -> int:
    """Number of users of a release who have asked to be deleted, up to now."""
    asked = pa.array(read_deletions(release.warehouse).user_ids, pa.string())
    if not len(asked):
        return 0
    users = release.table("interests", ["user_id"])["user_id"]
    return int(np.count_nonzero(pc.is_in(users, value_set=asked)))


def add_deletions(wh: Warehouse, user_ids: Collection[str]) -> Deletions:
    """Add people to the table, at once; who is in it already stays in it once.

    Raises
    ------
    WarehouseError
        If there is nobody to add, or an id is blank.
    """
    wanted = sorted(set(user_ids))
    if not wanted or not all(user_id.strip() for user_id in wanted):
        raise WarehouseError(f"user ids: seen {wanted[:3]!r}; allowed: one or more ids, none of them blank")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({KEY: wanted}), sink, compression="zstd")
    wh.storage.replace(f"{TABLE}/{_fingerprint(wanted)}.parquet", sink.getvalue().to_pybytes())
    return read_deletions(wh)


def _fingerprint(user_ids: Collection[str]) -> str:
    return hashlib.sha256("\0".join(user_ids).encode()).hexdigest()[:16]
