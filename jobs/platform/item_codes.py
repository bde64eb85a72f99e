"""Codes of items: the part of encode_items that runs in Spark's workers, one row group of item_vectors a task.

A module of its own, so that workers import it by name and its cache lives as long as they do.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.errors import HymirecError
from hymirec_model.vectors import distinct_rows
from jobs.platform import columns
from jobs.platform.columns import RowGroup
from jobs.platform.errors import SchemaError
from jobs.platform.warehouse import Partition, Warehouse

TASK = "file string, number int, start long, rows int"
"""Schema of the tasks: the fields of a RowGroup."""
RESULT = "error string, generation int, layer int, code int, items long, coded long, cosine double"
_RESULT_FIELDS: dict[str, pa.DataType] = {
    "error": pa.string(),
    "generation": pa.int32(),
    "layer": pa.int32(),
    "code": pa.int32(),
    "items": pa.int64(),
    "coded": pa.int64(),
    "cosine": pa.float64(),
}
_NEEDED = ["item_index", "item_id", "text_hash", "vector"]


@dataclass(frozen=True)
class SliceCoding:
    """What a worker must know; small enough to travel with each task.

    Parameters
    ----------
    warehouse : str
        URI.
    vectors : Partition
        item_vectors.
    book : Partition
    beam : int
    kept : Partition or None
        item_codes of an earlier day, made with this book.
    target : str
        Folder to write to, relative to the warehouse.
    """

    warehouse: str
    vectors: Partition
    book: Partition
    beam: int
    kept: Partition | None
    target: str

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Code the row groups named in the batches; yields, as RESULT says, how often each entry is used."""
        for batch in batches:
            for task in batch.to_pylist():
                yield self._attempt(RowGroup(**task))

    def _attempt(self, group: RowGroup) -> pa.RecordBatch:
        """An error on purpose is a result: raised here, Spark would repeat the task and bury the message."""
        try:
            return self.code(group)
        except HymirecError as error:
            nothing: dict[str, Any] = dict.fromkeys(_RESULT_FIELDS)
            return pa.RecordBatch.from_pylist([nothing | {"error": str(error)}], schema=pa.schema(_RESULT_FIELDS))

    def code(self, group: RowGroup) -> pa.RecordBatch:
        """Write the codes of a row group's items as one file: kept where their text is the same, else new ones."""
        wh = Warehouse(self.warehouse)
        book = _loaded(str(wh.local_copy(self.book)), self.beam)
        table = columns.read_row_group(wh, self.vectors, group, _NEEDED)
        if not np.array_equal(table["item_index"].to_numpy(), np.arange(group.start, group.start + group.rows)):
            where = f"{self.vectors.folder}/{group.file}"
            raise SchemaError("item_vectors", "item_index", "gaps or another order", "0, 1, 2, … in order", where)
        vectors = columns.matrix(table["vector"].combine_chunks(), "item_vectors", "vector")
        generations = np.zeros(group.rows, np.uint8)
        codes = np.zeros((group.rows, book.config.layers), np.uint8)
        missing = np.ones(group.rows, bool)
        if self.kept is not None:
            before = kept_codes(wh, self.kept, group)
            n = before.num_rows
            generations[:n] = before["generation"].to_numpy()
            codes[:n] = columns.matrix(before["codes"].combine_chunks(), "item_codes", "codes")
            same = pa.compute.equal(before["text_hash"], table["text_hash"].slice(0, n))
            missing[:n] = ~same.to_numpy()
        if missing.any():
            distinct, place = distinct_rows(vectors[missing])  # many products share a text
            new = book.encode_best(distinct)
            generations[missing], codes[missing] = new[0][place], new[1][place]
        coded = table.select(["item_index", "item_id", "text_hash"])
        coded = coded.append_column("generation", pa.array(generations))
        coded = coded.append_column("codes", columns.fixed_lists(codes))
        sink = pa.BufferOutputStream()
        pq.write_table(coded, sink, compression="zstd")
        # A whole file at once: an attempt that Spark repeats replaces it by the same bytes.
        wh.storage.replace(f"{self.target}/{file_of(group.start)}", sink.getvalue().to_pybytes())
        cosine = (book.decode(codes, generations) * vectors).sum(1, dtype=np.float64)
        return _counted(generations, codes[:, : book.table_.shape[1]], missing, float(cosine.sum()))


def file_of(start: int) -> str:
    """Name of the file of item_codes that begins with item ``start``: they sort as their items do."""
    return f"from-{start:012d}.parquet"


def kept_codes(wh: Warehouse, codes: Partition, group: RowGroup) -> pa.Table:
    """Rows of an earlier item_codes for the items of a row group, as far as they were known then.

    Items are numbered without gaps and a file's name tells its first one, so few files are opened.
    """
    names = sorted(codes.files)
    starts = [int(name.removeprefix("from-").removesuffix(".parquet")) for name in names]
    stop = group.start + group.rows
    chosen = names[max(bisect_right(starts, group.start) - 1, 0) : bisect_right(starts, stop - 1)]
    files = {name: codes.files[name] for name in chosen}
    table = wh.read(replace(codes, files=files), ["item_index", "text_hash", "generation", "codes"])
    first = starts[names.index(chosen[0])]
    return table.slice(max(group.start - first, 0), group.rows)


def _counted(
    generations: npt.NDArray[np.uint8], codes: npt.NDArray[np.uint8], missing: npt.NDArray[np.bool_], cosine: float
) -> pa.RecordBatch:
    """Items by generation, layer and entry; the sum of their cosines stands in the first row."""
    parts = []
    for layer in range(codes.shape[1]):
        keys, place = np.unique(generations.astype(np.int64) << 8 | codes[:, layer], return_inverse=True)
        new = np.bincount(place, missing, len(keys)).astype(np.int64)
        parts.append(np.stack([keys >> 8, np.full(len(keys), layer), keys & 255, np.bincount(place), new], 1))
    rows = np.concatenate(parts)
    cosines = np.zeros(len(rows))
    cosines[0] = cosine
    values: list[Any] = [pa.nulls(len(rows), pa.string()), *map(pa.array, rows.T), pa.array(cosines)]
    arrays = [array.cast(kind) for array, kind in zip(values, _RESULT_FIELDS.values(), strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(_RESULT_FIELDS))


@lru_cache(maxsize=1)
def _loaded(folder: str, beam: int) -> ResidualCodebook:
    import faiss
    import torch

    torch.set_num_threads(1)  # Spark runs as many tasks as there are cores
    faiss.omp_set_num_threads(1)
    book = ResidualCodebook.load(Path(folder))
    book.config = replace(book.config, beam=beam)
    return book
