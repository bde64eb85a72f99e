"""The table ``histories`` as its readers see it: one row a user, put together from the layers of several days.

A partition of the table holds the events of its own days only, one row for each user who has any. With the older
partitions that its ``info["layers"]`` names it makes up the log: a user's history is the user's rows in all of them,
merged. Which layers a day has, jobs.update_histories decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.platform.errors import WarehouseError
from jobs.platform.user_rows import UserRows
from jobs.platform.warehouse import Partition, Warehouse

KEY, COUNT = "user_id", "n_events"
Ints = npt.NDArray[np.int64]
IDENTITY = ("lineage", "since", "buckets", "max_length", "max_days", "deletions")
"""Facts of a layer that must stay as they were for the days above it."""
LISTS = ("item_indices", "timestamps", "weights")


@dataclass(frozen=True, slots=True)
class UserHistories:
    """Histories of a day; get them from :meth:`find`."""

    warehouse: Warehouse
    layers: tuple[Partition, ...]
    """Oldest first; the last one is the day's own partition."""

    @classmethod
    def find(cls, wh: Warehouse, ds: str) -> UserHistories:
        """Find the histories of day ``ds``.

        Raises
        ------
        MissingPartition
            If update_histories has not run for the day.
        WarehouseError
            If an older day that they are built on was run again and is not what it was.
        """
        own = wh.partition("histories", ds)
        return cls(wh, (*older_layers(wh, own), own))

    @property
    def ds(self) -> str:
        """The day."""
        return self.layers[-1].ds

    @property
    def info(self) -> dict[str, Any]:
        """What the day's writer said about all of them."""
        return self.layers[-1].info

    @property
    def buckets(self) -> list[str]:
        """Names of the buckets that hold users."""
        return sorted({name.split("/")[0] for layer in self.layers for name in layer.files if "/" in name})

    def bucket(self, name: str, columns: Sequence[str] = LISTS, only: Any = None) -> pa.Table:
        """The users of a bucket, sorted by user_id: columns user_id, the given lists, n_events.

        Parameters
        ----------
        name : str
        columns : sequence of str
        only : pyarrow.Array of string, optional
            The users wanted.
        """
        tables = self._read(name, columns)
        if only is not None:
            tables = [table.filter(pc.is_in(table[KEY], value_set=only)) for table in tables]
        return self._merged(tables)

    def counts(self, name: str) -> pa.Table:
        """The users of a bucket, sorted by user_id: columns user_id, n_events."""
        return self.bucket(name, ["timestamps"] if self.info["keep_from"] else []).select([KEY, COUNT])

    def expiring(self, name: str, keep_from: int) -> Any:
        """Users of a bucket with events before the moment from which on a later day keeps them."""
        if name not in self.buckets or keep_from == self.info["keep_from"]:
            return pa.array([], pa.string())
        rows = self.bucket(name, ["timestamps"])
        oldest: Any = pc.list_element(rows["timestamps"], 0)
        return rows[KEY].filter(pc.less(oldest, pa.scalar(keep_from, pa.int64()))).combine_chunks()

    def _read(self, name: str, columns: Sequence[str]) -> list[pa.Table]:
        tables = []
        for layer in self.layers:
            files = [file for file in layer.files if file.startswith(f"{name}/")]
            if files:
                inside = replace(layer, files=dict.fromkeys(files, 0))
                tables.append(self.warehouse.read(inside, [KEY, *columns, COUNT]))
        return tables

    def _merged(self, tables: list[pa.Table]) -> pa.Table:
        return merged(tables, self.info["max_length"], self.info["keep_from"])

    def by_bucket(self, columns: Sequence[str] = LISTS) -> Iterator[pa.Table]:
        """The users of one bucket after the other."""
        return (self.bucket(name, columns) for name in self.buckets)

    def read(self, columns: Sequence[str] = LISTS, most: int | None = None) -> pa.Table:
        """Users, sorted by user_id (buckets do not matter): all, or a fair sample of ``most`` of them.

        The sample is of whole buckets as far as they go, because a hash spreads users over them; the others are not
        read.
        """
        tables: list[pa.Table] = []
        left = most
        for table in self.by_bucket(columns):
            if left is not None and table.num_rows >= left:
                tables.append(table.take(np.sort(np.random.default_rng(0).permutation(table.num_rows)[:left])))
                break
            tables.append(table)
            left = None if left is None else left - table.num_rows
        return pa.concat_tables(tables).sort_by(KEY)

    def users(self, user_ids: Sequence[str], columns: Sequence[str] = LISTS) -> pa.Table:
        """The users named, without those who have no history, sorted by user_id; reads little more than their rows."""
        tables = []
        for layer in self.layers:
            rows = UserRows(self.warehouse, layer.folder, layer.files, self.info["buckets"])
            tables.append(rows.read(sorted(set(user_ids)), [*columns, COUNT]))
        found = [table for table in tables if table.num_rows]
        return self._merged(found) if found else tables[-1]


def older_layers(wh: Warehouse, own: Partition) -> list[Partition]:
    """Layers below a partition of histories, oldest first.

    Raises
    ------
    WarehouseError
        If one of them is not what it was when ``own`` was written.
    """
    found = []
    for layer in own.info["layers"]:
        there = wh.find("histories", layer["ds"])
        if there is None or any(there.info[name] != layer[name] for name in IDENTITY):
            changed = "is gone" if there is None else "was run again with other events, deletions or settings"
            raise WarehouseError(
                f"histories/ds={own.ds}: seen that histories/ds={layer['ds']}, which they are built on, "
                f"{changed}; allowed: as it was; run update_histories for ds={own.ds} again"
            )
        found.append(there)
    return found


def merged(tables: Sequence[pa.Table], max_length: int, keep_from: int = 0) -> pa.Table:
    """One row a user from the rows of several layers.

    Parameters
    ----------
    tables : sequence of pyarrow.Table
        Oldest layer first, each sorted by user_id: columns user_id, lists of equal length, n_events. One of the
        lists is timestamps, unless there are none.
    max_length : int
        Newest events of a user that are kept.
    keep_from : int, default=0
        Seconds since 1970 before which none is. Who has none left is left out, where there are lists.

    Returns
    -------
    pyarrow.Table
        Sorted by user_id. A user's events are ordered by timestamp; among equal ones an older layer's come first.
    """
    if len(tables) == 1 and not keep_from:
        return tables[0]
    rows = pa.concat_tables(tables)
    users, row_user = _numbered(rows[KEY])
    by_user = np.argsort(row_user, kind="stable")  # an older layer's row stays first
    rows, row_user = rows.take(by_user), row_user[by_user]
    columns: dict[str, Any] = {KEY: users, COUNT: np.bincount(row_user, rows[COUNT].to_numpy()).astype(np.int64)}
    lists: dict[str, Any] = {n: rows[n].combine_chunks() for n in rows.column_names if n not in columns}
    if lists:
        user = np.repeat(row_user, np.asarray(pc.list_value_length(lists["timestamps"]), np.int64))
        stamps = np.asarray(lists["timestamps"].flatten(), np.int64)
        order = _newest(user, stamps, len(users), max_length)
        order = order[stamps[order] >= keep_from]
        lengths = np.bincount(user[order], minlength=len(users))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
        for name, values in lists.items():
            columns[name] = pa.ListArray.from_arrays(offsets, values.flatten().take(order), type=values.type)
    found = pa.table({name: columns[name] for name in rows.column_names}, schema=rows.schema)
    return found.filter(lengths > 0) if lists and not lengths.all() else found


def _newest(user: Ints, stamps: Ints, users: int, max_length: int) -> Ints:
    """Places of each user's newest events, by user and time, from events by user and layer."""
    order = np.arange(len(user))
    if ((np.diff(stamps) < 0) & (np.diff(user) == 0)).any():  # an event came late
        order = np.lexsort((stamps, user))  # stable
    ends = np.cumsum(np.bincount(user, minlength=users))
    return order[np.arange(len(user)) >= np.repeat(ends - max_length, np.diff(ends, prepend=0))]


def _numbered(user_ids: Any) -> tuple[Any, Ints]:
    """Distinct users in order, and the place of each row's among them."""
    users = user_ids.unique().sort()
    return users, np.asarray(pc.index_in(user_ids, users), np.int64)
