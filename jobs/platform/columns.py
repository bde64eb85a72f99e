"""Vector columns of Parquet tables, and tables read and written a batch at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform.errors import SchemaError
from jobs.platform.warehouse import Partition, Warehouse

BATCH_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a partition's Parquet files: what one Spark task reads."""

    file: str
    number: int
    """Within the file."""
    start: int
    """Rows of the partition before it."""
    rows: int


def row_groups(warehouse: Warehouse, partition: Partition) -> list[RowGroup]:
    """Row groups of a partition's files in the order of their names; reads only the footers."""
    groups: list[RowGroup] = []
    start = 0
    for name in sorted(name for name in partition.files if name.endswith(".parquet")):
        with warehouse.filesystem.open_input_file(f"{partition.arrow_path}/{name}") as file:
            footer = pq.ParquetFile(file).metadata
            sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        for number, rows in enumerate(sizes):
            if rows:
                groups.append(RowGroup(name, number, start, rows))
            start += rows
    return groups


def read_row_group(warehouse: Warehouse, partition: Partition, group: RowGroup, columns: list[str]) -> pa.Table:
    """Columns of one row group.

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    with warehouse.filesystem.open_input_file(f"{partition.arrow_path}/{group.file}") as file:
        parquet = pq.ParquetFile(file)
        _check_columns(parquet, partition, columns)
        return parquet.read_row_group(group.number, columns=columns)


def _check_columns(parquet: pq.ParquetFile, partition: Partition, columns: list[str]) -> None:
    for column in columns:
        if column not in parquet.schema_arrow.names:
            seen = ", ".join(parquet.schema_arrow.names)
            raise SchemaError(partition.table, column, f"only {seen}", "this column", partition.folder)


def batches(
    warehouse: Warehouse, partition: Partition, columns: list[str], rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Record batches of a partition's files in the order of their names; memory does not grow with the table.

    Raises
    ------
    SchemaError
        If a column is missing.
    """
    for name in sorted(name for name in partition.files if name.endswith(".parquet")):
        with warehouse.filesystem.open_input_file(f"{partition.arrow_path}/{name}") as file:
            parquet = pq.ParquetFile(file, pre_buffer=False)  # else Arrow keeps every row group until the last is read
            _check_columns(parquet, partition, columns)
            yield from parquet.iter_batches(batch_size=rows, columns=columns)


def aligned(
    warehouse: Warehouse, tables: list[tuple[Partition, list[str]]], rows: int = BATCH_ROWS
) -> Iterator[list[pa.RecordBatch]]:
    """Batches of several tables of the same items side by side, whatever files the rows are spread over.

    Every list of columns begins with item_index.

    Raises
    ------
    SchemaError
        If the tables differ in number or order of items.
    """
    streams = [batches(warehouse, partition, names, rows) for partition, names in tables]
    heads: list[pa.RecordBatch | None] = [next(stream, None) for stream in streams]
    while any(head is not None for head in heads):
        ready = [head for head in heads if head is not None]
        size = min(head.num_rows for head in ready)
        first = ready[0].column(0).slice(0, size).to_numpy()
        for (partition, _), head in zip(tables, heads, strict=True):
            if head is None or not np.array_equal(head.column(0).slice(0, size).to_numpy(), first):
                seen = f"other items than in {tables[0][0].folder}"
                raise SchemaError(partition.table, "item_index", seen, "the same items", partition.folder)
        yield [head.slice(0, size) for head in ready]
        heads = [
            head.slice(size) if head is not None and head.num_rows > size else next(stream, None)
            for head, stream in zip(heads, streams, strict=True)
        ]


def column(warehouse: Warehouse, partition: Partition, name: str) -> npt.NDArray[Any]:
    """A column of plain values of the whole partition as one NumPy array."""
    parts = [batch.column(0).to_numpy(zero_copy_only=False) for batch in batches(warehouse, partition, [name])]
    return np.concatenate(parts) if parts else np.empty(0)


def days(warehouse: Warehouse, partition: Partition, name: str) -> npt.NDArray[np.datetime64]:
    """A column of days written YYYY-MM-DD as days: 8 bytes a row where text has many times that."""
    parts = [
        pa.compute.cast(batch.column(0), pa.date32()).to_numpy(zero_copy_only=False)
        for batch in batches(warehouse, partition, [name])
    ]
    return np.concatenate([np.empty(0, "datetime64[D]"), *parts])


def matrix(values: Any, table: str, name: str) -> npt.NDArray[Any]:
    """A column of lists of one length as an array (rows, length), without a copy where Arrow allows.

    Raises
    ------
    SchemaError
        If the column holds no lists, a null, or lists of different lengths.
    """
    if not (pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type)):
        raise SchemaError(table, name, str(values.type), "lists of numbers of one length")
    if values.null_count:
        raise SchemaError(table, name, f"{values.null_count} nulls", "no null")
    flat = values.flatten()
    length, rest = divmod(len(flat), max(len(values), 1))
    if pa.types.is_list(values.type):
        sizes = values.value_lengths().to_numpy()
        if rest or (sizes != length).any():
            raise SchemaError(table, name, f"lists of {sizes.min()} to {sizes.max()} values", "lists of one length")
    if pa.types.is_fixed_size_list(values.type):
        length = values.type.list_size
    array: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=False).reshape(len(values), length)
    return array


def vectors(
    warehouse: Warehouse,
    partition: Partition,
    name: str = "vector",
    rows: npt.NDArray[np.integer] | None = None,
) -> npt.NDArray[Any]:
    """A vector column in the type it is stored in: of the whole partition, or of the given rows
    (ascending)."""
    parts, start = [], 0
    for batch in batches(warehouse, partition, [name]):
        part = matrix(batch.column(0), partition.table, name)
        if rows is not None:
            low, high = np.searchsorted(rows, [start, start + len(part)])
            part = part[rows[low:high] - start]
        parts.append(part)
        start += batch.num_rows
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def new_mapped(path: Path, dtype: npt.DTypeLike, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[Any]]:
    """A new NumPy file of zeros, mapped into memory to be written, with its room on the disk reserved.

    Without it a full disk ends the process at a page: by a signal, with no word and nothing tidied up.

    Raises
    ------
    OSError
        If the disk has no room.
    """
    mapped = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return mapped


def memory_mapped(warehouse: Warehouse, partition: Partition, name: str, path: Path) -> npt.NDArray[Any]:
    """A column of fixed-length lists as a NumPy file at ``path``, mapped into memory; copied a batch at a time.

    Returns
    -------
    array of shape (rows, length), of the column's own type
    """
    rows = sum(group.rows for group in row_groups(warehouse, partition))
    mapped, done = None, 0
    for batch in batches(warehouse, partition, [name]):
        part = matrix(batch.column(0), partition.table, name)
        if mapped is None:
            mapped = new_mapped(path, part.dtype, (rows, part.shape[1]))
        mapped[done : done + len(part)] = part
        done += len(part)
    if mapped is None:
        raise SchemaError(partition.table, name, "no row", "one or more rows")
    mapped.flush()
    found: npt.NDArray[Any] = np.load(path, mmap_mode="r")
    return found


def content(vectors: npt.NDArray[Any]) -> str:
    """Fingerprint of a matrix, by which an index over other item vectors is told from one over these."""
    return hashlib.sha256(np.ascontiguousarray(vectors).data).hexdigest()[:16]


def fixed_lists(values: npt.NDArray[Any]) -> Any:
    """An array (rows, length) as a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])
