"""The part of export_interests that runs in Spark's workers: one bucket of histories → one file of interests.

A module of its own, so that workers import it by name and its cache lives as long as they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hymirec_model.errors import HymirecError
from jobs.platform import columns
from jobs.platform.user_histories import UserHistories
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from hymirec_model.inference import Floats, UserModel

RESULT = (
    "error string, users long, touched long, k int, dim int, merge string, scale double, shift_days double, "
    "shift_strength double"
)
_FIELDS: dict[str, pa.DataType] = {
    "error": pa.string(),
    "users": pa.int64(),
    "touched": pa.int64(),
    "k": pa.int32(),
    "dim": pa.int32(),
    "merge": pa.string(),
    "scale": pa.float64(),
    "shift_days": pa.float64(),
    "shift_strength": pa.float64(),
}
COLUMNS = ["user_id", "interests", "weights", "n_events", "seen", "bonus"]
_ROW = [name for name in COLUMNS if name != "weights"]
_LISTS = ["item_indices", "timestamps"]
ROW_GROUP = 64  # users: who looks one of them up reads some hundred KB


@dataclass(frozen=True)
class Kept:
    """Interests of an earlier day by the same model, whose log the day's continues."""

    interests: Partition
    layers: tuple[Partition, ...]
    """Those of that day's histories."""
    recoded: npt.NDArray[np.int64]
    """Items with other codes since; who had one of them is computed anew."""


@dataclass(frozen=True)
class BucketExport:
    """What a worker must know; small enough to travel with each task.

    Parameters
    ----------
    warehouse : str
        URI.
    layers : tuple of Partition
        Those of the day's histories.
    parts : ModelParts
    before : Kept or None
    target : str
        Folder to write to, relative to the warehouse.
    """

    warehouse: str
    layers: tuple[Partition, ...]
    parts: ModelParts
    before: Kept | None
    target: str

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
        wh = Warehouse(self.warehouse)
        histories = UserHistories(wh, self.layers)
        loaded = _loaded(_Key(self.warehouse, self.parts.recommender.folder, self.parts.codes.folder, self.parts))
        users = histories.counts(bucket)
        kept = self._unchanged(histories, bucket, users)
        touched = users if kept is None else users.join(kept.select(["user_id"]), "user_id", join_type="left anti")
        rows = interest_table(histories.bucket(bucket, _LISTS, touched["user_id"].combine_chunks()), loaded.model)
        if kept is not None:
            rows = pa.concat_tables([kept.cast(rows.schema), rows]).sort_by("user_id")
        sink = pa.BufferOutputStream()
        pq.write_table(weighted(rows, loaded), sink, compression="zstd", row_group_size=ROW_GROUP)
        # A whole file at once: an attempt that Spark repeats replaces it by the same bytes.
        wh.storage.replace(f"{self.target}/{bucket}/part-00000.parquet", sink.getvalue().to_pybytes())
        model = loaded.model
        shape = {"k": model.model.config.interests, "dim": model.model.dim}
        counts = {"users": rows.num_rows, "touched": len(touched)}
        shift = {f"shift_{name}": factor for name, factor in model.model.shift._asdict().items()}
        return {**counts, **shape, "merge": model.merge, "scale": model.scale, **shift}

    def _unchanged(self, histories: UserHistories, bucket: str, users: pa.Table) -> pa.Table | None:
        """Rows of the day before of those whose history neither grew nor lost events to retention since, nor its items
        their codes."""
        name = f"{bucket}/part-00000.parquet"
        if self.before is None or name not in self.before.interests.files:
            return None
        interests = self.before.interests
        rows = histories.warehouse.read(replace(interests, files={name: interests.files[name]}), _ROW)
        known = rows.select(["user_id", "n_events"]).append_column("row", pa.array(range(len(rows)), pa.int64()))
        same = known.join(users, ["user_id", "n_events"], join_type="inner", use_threads=False)
        rows = rows.take(same.sort_by("row")["row"])
        seen: Any = rows["seen"].combine_chunks()
        recoded: Any = pc.is_in(seen.flatten(), value_set=pa.array(self.before.recoded, pa.int32()))
        had = rows["user_id"].combine_chunks().take(pc.list_parent_indices(seen).filter(recoded))
        # Asked of that day's histories: layers that were written since may have dropped what went out of retention.
        older = UserHistories(histories.warehouse, self.before.layers)
        gone = pa.concat_arrays([older.expiring(bucket, histories.info["keep_from"]), had])
        return rows.filter(pc.invert(pc.is_in(rows["user_id"], value_set=gone)))


def interest_table(table: pa.Table, model: UserModel) -> pa.Table:
    """Rows of the table ``interests``, but for the weights, for the users of a histories table.

    Column ``seen`` holds a user's distinct items, ascending: those of the history as it is kept, hence of the
    newest ``histories.max_length`` events; ``bonus`` is what each of them gets on top of the merge.
    """
    from hymirec_model.histories import Histories

    histories = Histories.from_arrow(table)
    interests = model.interests(histories)
    offsets, items, values = model.bonus(histories)
    flat = interests.reshape(len(interests), math.prod(interests.shape[1:])).astype(np.float16)
    starts = pa.array(offsets, pa.int32())
    rows: pa.Table = table.append_column("interests", columns.fixed_lists(flat))
    rows = rows.append_column("seen", pa.ListArray.from_arrays(starts, pa.array(items, pa.int32())))
    rows = rows.append_column("bonus", pa.ListArray.from_arrays(starts, pa.array(values, pa.float32())))
    return rows.select(_ROW)


def weighted(rows: pa.Table, loaded: _Loaded) -> pa.Table:
    """Add the column ``weights``: of the interests as they are stored, so that old rows and new ones are alike."""
    from hymirec_model.inference import interest_weights

    model = loaded.model
    stored = columns.matrix(rows["interests"].combine_chunks(), "interests", "interests").astype(np.float32)
    interests = stored.reshape(len(stored), model.model.config.interests, model.model.dim)
    weights = interest_weights(interests, model.merge, model.scale, loaded.calibration)
    return rows.append_column("weights", columns.fixed_lists(weights)).select(COLUMNS)


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
