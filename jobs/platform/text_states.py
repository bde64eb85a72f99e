"""States of texts: the part of embed_catalog that runs in Spark's workers, and how later jobs read them.

A module of its own, so that workers import it by name and its cache lives as long as they do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform import columns
from jobs.platform.errors import WarehouseError
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from hymirec_model.content_encoder import ContentEncoder

RESULT = "texts long, embedded long"


@dataclass(frozen=True)
class SliceEmbedding:
    """What a worker must know; small enough to travel with each task.

    Parameters
    ----------
    warehouse : str
        URI.
    encoder : Partition
    target : str
        Folder to write to, relative to the warehouse.
    unfinished : tuple of str
        Folders of attempts that were not committed, whose files need not be made again.
    """

    warehouse: str
    encoder: Partition
    target: str
    unfinished: tuple[str, ...] = ()

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write the states of a slice (text_hash, text) as one file; yield how many texts, and how many embedded."""
        wh = Warehouse(self.warehouse)
        schema = pa.schema([("text_hash", pa.string()), ("text", pa.string())])
        rows = pa.Table.from_batches(list(batches), schema)
        embedded = 0
        if rows.num_rows:
            name = self.file_name(rows)
            content = self._found(wh, name, rows.num_rows)
            if content is None:
                content, embedded = self.embed(wh, rows), rows.num_rows
            # A whole file at once: an attempt that Spark repeats replaces it by the same bytes.
            wh.storage.replace(f"{self.target}/{name}", content)
        counts = {"texts": pa.array([rows.num_rows], pa.int64()), "embedded": pa.array([embedded], pa.int64())}
        yield pa.RecordBatch.from_pydict(counts)

    def file_name(self, rows: pa.Table) -> str:
        """Name of a slice's file; it tells encoder and texts, so that files of equal names have equal states."""
        hashes = rows["text_hash"].to_pylist()
        key = json.dumps([self.encoder.info["version"], *hashes])
        return f"from-{hashes[0]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.parquet"

    def embed(self, wh: Warehouse, rows: pa.Table) -> bytes:
        """A slice's file."""
        encoder = _loaded(str(wh.local_copy(self.encoder)))
        states = encoder.embed([str(text) for text in rows["text"].to_pylist()])
        sink = pa.BufferOutputStream()
        pq.write_table(state_table(rows["text_hash"].combine_chunks(), states), sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())

    def _found(self, wh: Warehouse, name: str, texts: int) -> bytes | None:
        for folder in self.unfinished:
            content = wh.storage.read(f"{folder}/{name}")
            if content is not None and _rows_of(content) == texts:
                return content
        return None

    def dim(self, wh: Warehouse) -> int:
        """Length of a state."""
        config = Path(wh.local_copy(self.encoder)) / "backbone" / "config.json"
        return int(json.loads(config.read_text())["hidden_size"])


def state_table(hashes: Any, states: npt.NDArray[np.floating]) -> pa.Table:
    """Rows of the table ``text_vectors``: hashes of n texts, and their states (n, h) as 16-bit floats."""
    return pa.table({"text_hash": hashes, "state": columns.fixed_lists(states.astype(np.float16))})


def _rows_of(content: bytes) -> int | None:
    """Rows of a Parquet file, or None for one that a killed process has left half (HDFS shows those)."""
    try:
        return int(pq.read_metadata(pa.BufferReader(content)).num_rows)
    except pa.ArrowInvalid:
        return None


@lru_cache(maxsize=1)
def _loaded(folder: str) -> ContentEncoder:
    import torch

    from hymirec_model.content_encoder import ContentEncoder

    torch.set_num_threads(1)  # Spark runs as many tasks as there are cores
    return ContentEncoder.load(Path(folder))


def encoder_states(
    wh: Warehouse, encoder: Partition, *, until: str | None = None, before: str | None = None
) -> list[Partition]:
    """Partitions of text_vectors made by an encoder, up to and including ``until`` or strictly before ``before``."""
    found = []
    for day in wh.partitions("text_vectors"):
        if (until is None or day <= until) and (before is None or day < before):
            partition = wh.partition("text_vectors", day)
            if partition.info["encoder_version"] == encoder.info["version"]:
                found.append(partition)
    return found


def read_states(wh: Warehouse, ds: str, encoder: Partition) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """States of all distinct texts of catalog/ds, and each item's row among them.

    Returns
    -------
    states : float32 array of shape (texts, h)
    state_of_item : int64 array of shape (items,)

    Raises
    ------
    WarehouseError
        If a text has no state.
    """
    tables = [wh.read(partition, ["text_hash", "state"]) for partition in encoder_states(wh, encoder, until=ds)]
    hashes = wh.read(wh.partition("catalog", ds), ["text_hash"])["text_hash"]
    if not tables:
        raise WarehouseError(
            f"text_vectors: seen none by encoder {encoder.info['version']}; allowed: a state for every text; run "
            "embed_catalog"
        )
    states = pa.concat_tables(tables)
    rows: Any = pa.compute.index_in(hashes, value_set=states["text_hash"].combine_chunks())
    missing = rows.null_count
    if missing:
        raise WarehouseError(
            f"text_vectors: seen no state for {missing:,} of {len(hashes):,} items of catalog/ds={ds}; allowed: a "
            "state for every text; run embed_catalog for this day again"
        )
    matrix = columns.matrix(states["state"].combine_chunks(), "text_vectors", "state")
    return matrix.astype(np.float32), np.asarray(rows.combine_chunks(), np.int64)
