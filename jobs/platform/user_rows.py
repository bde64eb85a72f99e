"""Rows of single users in a table that lies in buckets, without reading the table."""

from __future__ import annotations

import bisect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.platform.names import bucket_of
from jobs.platform.warehouse import Warehouse

_KEY = "user_id"


@dataclass(frozen=True, slots=True)
class UserRows:
    """A table with one row a user: a folder a bucket, Parquet files in it, each sorted by user_id.

    Parameters
    ----------
    warehouse : Warehouse
    folder : str
        Of the table, relative to the warehouse.
    files : collection of str
        Relative to the folder.
    buckets : int
        Number of buckets that the users are spread over; empty ones have no folder.
    """

    warehouse: Warehouse
    folder: str
    files: Collection[str]
    buckets: int

    def read(self, user_ids: Sequence[str], columns: list[str]) -> pa.Table:
        """Read the rows of users: each bucket once, and of its files the row groups that may hold one of them.

        Parameters
        ----------
        user_ids : sequence of str
            In any order; the same user may stand there twice.
        columns : list of str
            Beside user_id.

        Returns
        -------
        pyarrow.Table
            Columns user_id and the given ones, rows in the order of `user_ids`; without the users that the
            table lacks.
        """
        inside: dict[str, list[str]] = {}
        for user_id in user_ids:
            inside.setdefault(bucket_of(user_id, self.buckets), []).append(user_id)
        tables = [
            self._read_file(name, wanted, [_KEY, *columns])
            for bucket, wanted in sorted(inside.items())
            for name in sorted(self.files)
            if name.startswith(f"{bucket}/") and name.endswith(".parquet")
        ]
        if not tables:
            return pa.table({name: pa.nulls(0, pa.string()) for name in (_KEY, *columns)})
        found = pa.concat_tables(tables)
        rows = pc.index_in(pa.array(user_ids, pa.string()), found[_KEY].combine_chunks())
        return found.take(rows.drop_null())

    def _read_file(self, name: str, wanted: list[str], columns: list[str]) -> pa.Table:
        path = self.warehouse.storage.path(self.folder, name)
        with self.warehouse.filesystem.open_input_file(path) as file:
            parquet = pq.ParquetFile(file)
            ordered = sorted(wanted)
            groups = [number for number in range(parquet.num_row_groups) if _may_hold(parquet, number, ordered)]
            table = parquet.read_row_groups(groups, columns)
        return table.filter(pc.is_in(table[_KEY], value_set=pa.array(wanted, pa.string())))


def _may_hold(parquet: pq.ParquetFile, number: int, wanted: list[str]) -> bool:
    """Tell whether one of ``wanted``, in ascending order, lies between the first and the last user of a row group."""
    group = parquet.metadata.row_group(number)
    keys = [about for about in map(group.column, range(group.num_columns)) if about.path_in_schema == _KEY]
    bounds: Any = keys[0].statistics
    if bounds is None or not bounds.has_min_max:
        return True
    place = bisect.bisect_left(wanted, bounds.min)
    return place < len(wanted) and wanted[place] <= bounds.max
