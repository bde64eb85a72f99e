"""The codes of all items: kept from an earlier day, completed with a codebook, written as the table
item_codes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hymirec_model.codebook import ResidualCodebook
from jobs.platform import columns
from jobs.platform.errors import SchemaError, WarehouseError
from jobs.platform.warehouse import Partition, Warehouse


@dataclass(frozen=True, slots=True)
class ItemCodes:
    """Codes by item_index."""

    codes: npt.NDArray[np.uint8]
    """(n, L)."""
    generations: npt.NDArray[np.uint8]
    """(n,)."""
    missing: npt.NDArray[np.bool_]
    """(n,): items that have no codes yet, or whose text has changed since."""

    @classmethod
    def kept(cls, wh: Warehouse, vectors: Partition, codes: Partition | None, n_items: int, layers: int) -> ItemCodes:
        """The codes of an earlier day for as many of the `n_items` as still have the text they were made of.

        Parameters
        ----------
        vectors : Partition
            item_vectors of today.
        codes : Partition, optional
            item_codes of an earlier day; without one everything is missing.

        Raises
        ------
        WarehouseError
            If the catalogue has become shorter.
        """
        new = cls(np.zeros((n_items, layers), np.uint8), np.zeros(n_items, np.uint8), np.ones(n_items, bool))
        if codes is None:
            return new
        kept = columns.vectors(wh, codes, "codes")
        n_kept = len(kept)
        if n_kept > n_items:
            raise WarehouseError(
                f"item_codes/ds={codes.ds} has {n_kept:,} items, catalog/ds={vectors.ds} only {n_items:,}; "
                "allowed: a catalogue that only grows; run the days again in order"
            )
        new.codes[:n_kept], new.generations[:n_kept] = kept, columns.column(wh, codes, "generation")
        before = columns.column(wh, wh.partition("item_vectors", codes.ds), "text_hash")
        new.missing[:n_kept] = columns.column(wh, vectors, "text_hash")[:n_kept] != before
        return new

    def complete(self, wh: Warehouse, vectors: Partition, book: ResidualCodebook, path: Path) -> None:
        """Code the items that are missing and write all codes to a Parquet file, a batch at a time.

        Raises
        ------
        SchemaError
            If item_vectors is not in the order of item_index.
        """
        fields: list[tuple[str, Any]] = [
            ("item_index", pa.int32()),
            ("item_id", pa.string()),
            ("generation", pa.uint8()),
            ("codes", pa.list_(pa.uint8(), self.codes.shape[1])),
        ]
        schema = pa.schema(fields)
        start = 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in columns.batches(wh, vectors, ["item_index", "item_id", "vector"]):
                span = slice(start, start + batch.num_rows)
                if not np.array_equal(batch.column(0).to_numpy(), np.arange(span.start, span.stop)):
                    raise SchemaError(
                        "item_vectors",
                        "item_index",
                        "gaps or another order",
                        "0, 1, 2, … in order",
                        vectors.folder,
                    )
                self._encode(start, columns.matrix(batch.column(2), "item_vectors", "vector"), book)
                arrays = [
                    batch.column(0).cast(pa.int32()),
                    batch.column(1).cast(pa.string()),
                    pa.array(self.generations[span]),
                    columns.fixed_lists(self.codes[span]),
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
                start = span.stop

    def usage(self, book: ResidualCodebook) -> tuple[float, ...]:
        """Share of the book's entries that items use, for each layer."""
        size = book.config.size
        keys = self.generations[:, None].astype(np.int64) * size + self.codes[:, : book.table_.shape[1]]
        return tuple(len(np.unique(layer)) / (book.generations_ * size) for layer in keys.T)

    def _encode(self, start: int, vectors: npt.NDArray[np.floating], book: ResidualCodebook) -> None:
        new = np.flatnonzero(self.missing[start : start + len(vectors)])
        if len(new):
            distinct, place = np.unique(vectors[new], axis=0, return_inverse=True)  # many products share a text
            generations, codes = book.encode_best(distinct)
            self.generations[start + new], self.codes[start + new] = generations[place], codes[place]
