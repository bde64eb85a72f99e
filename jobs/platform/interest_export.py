"""The part of export_interests that runs in Spark's workers: one bucket of histories → one file of interests.

A module of its own, so that workers import it by name and its cache lives as long as they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hymirec_model.errors import HymirecError
from jobs.platform import columns
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from hymirec_model.histories import Histories
    from hymirec_model.inference import Floats, UserModel

RESULT = "error string, users long, k int, dim int, merge string, scale double"
_FIELDS: dict[str, pa.DataType] = {
    "error": pa.string(),
    "users": pa.int64(),
    "k": pa.int32(),
    "dim": pa.int32(),
    "merge": pa.string(),
    "scale": pa.float64(),
}
_COLUMNS = ["user_id", "item_indices", "timestamps", "n_events"]
ROW_GROUP = 64  # users: who looks one of them up reads some hundred KB


@dataclass(frozen=True)
class BucketExport:
    """What a worker must know; small enough to travel with each task.

    Parameters
    ----------
    warehouse : str
        URI.
    histories : Partition
    parts : ModelParts
    target : str
        Folder to write to, relative to the warehouse.
    now : int
        Seconds since 1970 from which ages are counted.
    """

    warehouse: str
    histories: Partition
    parts: ModelParts
    target: str
    now: int

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Export the buckets named in the batches; yields what RESULT says of each."""
        for batch in batches:
            rows = [self._attempt(str(name)) for name in batch.column("bucket").to_pylist()]
            yield pa.RecordBatch.from_pylist(rows, schema=pa.schema(_FIELDS))

    def _attempt(self, bucket: str) -> dict[str, Any]:
        """An error on purpose is a result: raised here, Spark would repeat the task and bury the message."""
        try:
            return {"error": None} | self.export(bucket)
        except HymirecError as error:
            return {"error": str(error)}

    def export(self, bucket: str) -> dict[str, Any]:
        """Write the interests of one bucket's users; return their number and the model's shape and merge."""
        from hymirec_model.histories import Histories

        wh = Warehouse(self.warehouse)
        files = {name: size for name, size in self.histories.files.items() if name.startswith(f"{bucket}/")}
        inside = replace(self.histories, files=files)
        table = wh.read(inside, _COLUMNS).sort_by("user_id")
        loaded = _loaded(_Key(self.warehouse, self.parts.recommender.folder, self.parts.codes.folder, self.parts))
        histories = Histories.from_arrow(table)
        interests = loaded.model.interests(histories, self.now)
        sink = pa.BufferOutputStream()
        rows = interest_table(table, histories, interests, loaded)
        pq.write_table(rows, sink, compression="zstd", row_group_size=ROW_GROUP)
        # A whole file at once: an attempt that Spark repeats replaces it by the same bytes.
        wh.storage.replace(f"{self.target}/{bucket}/part-00000.parquet", sink.getvalue().to_pybytes())
        model = loaded.model
        shape = {"k": model.model.config.interests, "dim": model.model.dim}
        return {"users": table.num_rows, **shape, "merge": model.merge, "scale": model.scale}


def interest_table(table: pa.Table, histories: Histories, interests: Floats, loaded: _Loaded) -> pa.Table:
    """Rows of the table ``interests`` for the users of a histories table.

    Column ``seen`` holds a user's distinct items, ascending: those of the history as it is kept, hence of the
    newest ``histories.max_length`` events.

    Parameters
    ----------
    table : pyarrow.Table
        U histories.
    histories : Histories
        The same.
    interests : float32 array of shape (U, K, d)
    loaded : _Loaded
    """
    from hymirec_model.inference import interest_weights

    weights = interest_weights(interests, loaded.model.merge, loaded.model.scale, loaded.calibration)
    flat = interests.reshape(len(interests), -1).astype(np.float16)
    offsets, items = histories.distinct_items()
    seen = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(items, pa.int32()))
    new = {"interests": columns.fixed_lists(flat), "weights": columns.fixed_lists(weights), "seen": seen}
    for name, column in new.items():
        table = table.append_column(name, column)
    rows: pa.Table = table.select(["user_id", "interests", "weights", "n_events", "seen"])
    return rows


@dataclass(frozen=True)
class _Loaded:
    model: UserModel
    calibration: Floats


@dataclass(frozen=True)
class _Key:
    """Identity of a model: the folders of committed attempts never change."""

    warehouse: str
    recommender: str
    codes: str
    parts: ModelParts = field(compare=False)


@lru_cache(maxsize=1)
def _loaded(key: _Key) -> _Loaded:
    import torch

    torch.set_num_threads(1)  # Spark runs as many tasks as there are cores
    wh = Warehouse(key.warehouse)
    return _Loaded(key.parts.load(wh), key.parts.calibration_vectors(wh))
