"""Tables and partitions of a warehouse, written as transactions.

Two kinds of tables:

- *Input tables* are the user's plain Parquet: ``events/ds=YYYY-MM-DD/*.parquet`` and ``items/*.parquet``.
- *Our tables* are versioned partitions::

      <table>/ds=D/<attempt>/…          files of one attempt to write the partition
      <table>/ds=D/_current.json        the valid attempt, its files with their bytes, the writer's facts

A writer fills a fresh attempt and then replaces ``_current.json`` atomically; a reader follows only that
file. So a half-written attempt is invisible, a rerun replaces the partition at once, and overlapping
retries do no harm: each has its own folder and the last one to finish counts.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from jobs.platform import downloads
from jobs.platform.attempts import clean, give_up
from jobs.platform.errors import MissingPartition, WarehouseError
from jobs.platform.names import check_ds, check_pointer, check_table, ds_of
from jobs.platform.storage import Storage

INPUT_TABLES = ("events", "items")
_POINTER = "_current.json"


@dataclass(frozen=True)
class Partition:
    """A committed partition: where its files are and what its writer said about it."""

    table: str
    ds: str
    path: str
    """Folder as Spark wants it (a plain path for a local warehouse)."""
    arrow_path: str
    """Folder as ``Warehouse.filesystem`` wants it."""
    folder: str
    """Folder relative to the warehouse's root."""
    files: dict[str, int]
    """Bytes of each file, keyed by path relative to the folder."""
    rows: int | None = None
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class PartitionWriter:
    """An attempt to write a partition; see :meth:`Warehouse.write_partition`."""

    table: str
    ds: str
    path: str
    """Folder for Spark to write to; it does not exist yet."""
    info: dict[str, Any] = field(default_factory=dict)
    """Facts to store with the partition (JSON values)."""
    rows: int | None = None
    """Row count to store with the partition."""
    _local: Path

    @property
    def local(self) -> Path:
        """Local folder to write files into; they are uploaded at commit when the warehouse is remote."""
        self._local.mkdir(parents=True, exist_ok=True)
        return self._local

    def write_table(self, table: pa.Table, name: str = "part-00000.parquet", row_group_size: int | None = None) -> None:
        """Write one Parquet file (zstd), and add its rows to ``rows``."""
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target, compression="zstd", row_group_size=row_group_size)
        self.rows = (self.rows or 0) + table.num_rows


class Warehouse:
    """A warehouse at ``uri``.

    Parameters
    ----------
    uri : str
        A local path, or a URI with one of the schemes file, s3, s3a, gs, hdfs.
    filesystem : pyarrow.fs.FileSystem, optional
        Filesystem in place of the one that the URI names.

    Raises
    ------
    WarehouseError
        If the URI cannot be used.
    """

    def __init__(self, uri: str, filesystem: pafs.FileSystem | None = None) -> None:
        self.storage = Storage(uri, filesystem)
        self.uri = self.storage.uri
        self.filesystem = self.storage.filesystem

    def partitions(self, table: str) -> list[str]:
        """Sorted days of the partitions that hold data (input tables) or are committed (ours)."""
        check_table(table)
        if table in INPUT_TABLES:
            found = {name.split("/")[0] for name in self.storage.files(table) if "/" in name}
            return sorted(filter(None, map(ds_of, found)))
        days = self._folders(table)
        there = self.storage.existing([f"{table}/ds={ds}/{_POINTER}" for ds in days]) if days else []
        return [ds for ds, exists in zip(days, there, strict=True) if exists]

    def latest(self, table: str, until: str | None = None, *, strict: bool = False) -> Partition | None:
        """Newest partition of one of our tables on or before ``until`` (``strict``: before it), or None."""
        check_table(table)
        until = until if until is None else check_ds(until)
        for ds in reversed(self._folders(table)):
            if until is not None and (ds > until or (strict and ds == until)):
                continue
            partition = self._current(table, ds)
            if partition is not None:
                return partition
        return None

    def find(self, table: str, ds: str) -> Partition | None:
        """Return the partition of day ``ds`` of one of our tables, or None if it does not exist.

        Raises
        ------
        WarehouseError
            If files are missing or have other sizes than its writer left; so do `partition` and `latest`.
        """
        return self._current(check_table(table), check_ds(ds))

    def partition(self, table: str, ds: str) -> Partition:
        """Return the partition of day ``ds``.

        Raises
        ------
        MissingPartition
            If it does not exist; the message names the newest one that does.
        """
        check_table(table)
        check_ds(ds)
        if table == "events":
            return self._input(table, ds)
        partition = self._current(table, ds)
        if partition is None:
            newest = self.latest(table)
            hint = f"run the job that writes {table} for ds={ds} first"
            raise MissingPartition(table, ds, newest.ds if newest else None, hint)
        return partition

    def items(self) -> Partition:
        """Return the input table ``items``, which has no days.

        Raises
        ------
        MissingPartition
            If it has no Parquet file.
        """
        return self._input("items", "")

    def read(self, partition: Partition, columns: list[str] | None = None) -> pa.Table:
        """Read a partition's Parquet files with pyarrow; folders ``name=value`` do not become columns."""
        names = sorted(name for name in partition.files if name.endswith(".parquet"))
        if not names:
            raise WarehouseError(f"{partition.folder}: seen no Parquet file; allowed: one or more")
        tables = [
            pq.read_table(
                f"{partition.arrow_path}/{name}",
                columns=columns,
                filesystem=self.filesystem,
                partitioning=None,
            )
            for name in names
        ]
        return pa.concat_tables(tables)

    def local_copy(self, partition: Partition) -> Path:
        """Folder of this machine with the partition's files; see :meth:`local_folder`."""
        return self.local_folder(partition.folder)  # an attempt never changes once committed

    def local_folder(self, folder: str) -> Path:
        """A folder that never changes, on this machine: itself when local, else :func:`downloads.local_copy`.

        Parameters
        ----------
        folder : str
            Relative to the warehouse.
        """
        local = self.storage.local
        return downloads.local_copy(self.storage, folder) if local is None else local / folder

    @contextmanager
    def write_partition(self, table: str, ds: str, *, resumable: bool = False) -> Iterator[PartitionWriter]:
        """Write a partition as a transaction: visible at a clean exit, not at all on an exception.

        Parameters
        ----------
        table, ds : str
        resumable : bool, default=False
            Files of an attempt that failed stay until the next one is committed; see :meth:`unfinished_attempts`.

        Yields
        ------
        PartitionWriter
            Let Spark write to ``path``, or write files into ``local``; add facts to ``info``.

        Raises
        ------
        WarehouseError
            If nothing was written, or ``table`` is an input table.
        """
        check_table(table)
        check_ds(ds)
        if table in INPUT_TABLES:
            raise WarehouseError(f"table {table} is an input table; allowed: a table that a job writes")
        attempt = uuid.uuid4().hex
        folder = f"{table}/ds={ds}/{attempt}"
        with tempfile.TemporaryDirectory(prefix="hymirec-") as scratch:
            root = self.storage.local
            local = root / folder if root is not None else Path(scratch) / "files"
            writer = PartitionWriter(table=table, ds=ds, path=self.storage.spark_path(folder), _local=local)
            try:
                yield writer
                if root is None and local.exists():
                    self.storage.upload(local, folder)
                self.storage.settle(folder)
                files = dict(sorted(self.storage.files(folder).items()))
                if not files:
                    raise WarehouseError(f"{table}/ds={ds}: the job wrote no file; an empty table is a file too")
            except BaseException:
                if resumable:
                    give_up(self.storage, folder)
                else:
                    self.storage.remove(folder)
                raise
        self._commit(writer, attempt, files)

    def unfinished(self, writer: PartitionWriter) -> Partition:
        """What workers have written so far, to be checked before it becomes visible."""
        folder = writer.path.removeprefix(f"{self.uri}/")
        files = dict(sorted(self.storage.files(folder).items()))
        return self._partition(writer.table, writer.ds, folder, files, writer.rows, writer.info)

    def unfinished_attempts(self, table: str, ds: str) -> list[str]:
        """Folders, relative to the warehouse, of attempts at a partition that were not committed, running ones too."""
        base = f"{check_table(table)}/ds={check_ds(ds)}"
        pointer = self._pointer(base) or {"folder": None, "previous": None}
        committed = (pointer["folder"], pointer["previous"])
        return [f"{base}/{attempt}" for attempt in self.storage.folders(base) if attempt not in committed]

    def _commit(self, writer: PartitionWriter, attempt: str, files: dict[str, int]) -> None:
        base = f"{writer.table}/ds={writer.ds}"
        before = self._pointer(base) or {"folder": None, "previous": None}
        previous = before["folder"]
        pointer = {
            "folder": attempt,
            "previous": previous,
            "rows": writer.rows,
            "files": files,
            "info": writer.info,
        }
        self.storage.replace(f"{base}/{_POINTER}", json.dumps(pointer, indent=1).encode())
        clean(self.storage, base, keep=(attempt, previous), superseded=before["previous"])

    def _folders(self, table: str) -> list[str]:
        return sorted(filter(None, map(ds_of, self.storage.folders(table))))

    def _pointer(self, base: str) -> dict[str, Any] | None:
        raw = self.storage.read(f"{base}/{_POINTER}")
        if raw is None:
            return None
        try:
            pointer: dict[str, Any] = json.loads(raw)
        except ValueError as error:
            raise WarehouseError(f"{base}/{_POINTER} is not JSON ({error}); rerun the job that writes it") from error
        check_pointer(f"{base}/{_POINTER}", pointer)
        return pointer

    def _current(self, table: str, ds: str) -> Partition | None:
        pointer = self._pointer(f"{table}/ds={ds}")
        if pointer is None:
            return None
        folder = f"{table}/ds={ds}/{pointer['folder']}"
        self._check_whole(folder, pointer["files"])
        return self._partition(table, ds, folder, pointer["files"], pointer["rows"], pointer["info"])

    def _check_whole(self, folder: str, expected: dict[str, int]) -> None:
        """Refuse a partition with a file that was lost or cut: Spark's error would not name the cause."""
        found = self.storage.files(folder)
        for name, size in expected.items():
            if found.get(name) != size:
                seen = f"{found[name]:,} bytes" if name in found else "no such file"
                raise WarehouseError(
                    f"{folder}/{name}: seen {seen}; allowed: the {size:,} bytes that were written; run the job that "
                    f"writes {folder.partition('/')[0]} for this day again"
                )

    def _input(self, table: str, ds: str) -> Partition:
        folder = f"{table}/ds={ds}" if ds else table
        files = {name: size for name, size in self.storage.files(folder).items() if name.endswith(".parquet")}
        if not files:
            days = self.partitions(table) if ds else []
            hint = "bring the data in with `python -m jobs.import_events`"
            if days:
                hint = f"choose a day from {days[0]} to {days[-1]} that has events, or " + hint
            raise MissingPartition(table, ds, days[-1] if days else None, hint)
        return self._partition(table, ds, folder, files, None, {})

    def _partition(
        self, table: str, ds: str, folder: str, files: dict[str, int], rows: int | None, info: dict[str, Any]
    ) -> Partition:
        path, arrow_path = self.storage.spark_path(folder), self.storage.path(folder)
        return Partition(table, ds, path, arrow_path, folder, files, rows, info)
