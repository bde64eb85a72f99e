"""Tables as MLflow's data sets: what a run read, told by footers and partitions alone; no row is read.

A data set's digest changes when the bytes of its files, or what their writer said about them, do.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from mlflow.entities import Dataset
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object

_SHOWN_FACTS = ("users", "events", "new_events", "generations", "dim")
"""Numbers of a partition's info that tell its size."""
_SOURCE_TYPES = {"file": "local", "s3a": "s3"}
"""MLflow's words for schemes of a warehouse that it names otherwise."""


def dataset(wh: Warehouse, partition: Partition, rows: int | None = None) -> Dataset:
    """A partition as a data set: name, digest, URI, schema and rows.

    Parameters
    ----------
    wh : Warehouse
    partition : Partition
    rows : int, optional
        Default: what the partition says.
    """
    from mlflow.entities import Dataset
    from mlflow.types import ColSpec, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = []
    for name in sorted(name for name in partition.files if name.endswith(".parquet"))[:1]:
        with wh.filesystem.open_input_file(f"{partition.arrow_path}/{name}") as file:
            columns = [ColSpec(_kind(column.type), column.name) for column in pq.read_schema(file)]
    sizes = {"num_rows": partition.rows if rows is None else rows}
    sizes |= {fact: partition.info[fact] for fact in _SHOWN_FACTS if fact in partition.info}
    sizes |= {"num_files": len(partition.files), "num_bytes": sum(partition.files.values())}
    scheme = wh.uri.partition("://")[0] if "://" in wh.uri else "file"
    return Dataset(
        name=partition.table,
        digest=digest(partition),
        source_type=_SOURCE_TYPES.get(scheme, scheme),
        source=json.dumps({"uri": f"{wh.uri}/{partition.folder}"}),
        schema=json.dumps({"mlflow_colspec": Schema(columns).to_dict()}) if columns else None,
        profile=json.dumps({fact: value for fact, value in sizes.items() if value is not None}),
    )


def digest(partition: Partition) -> str:
    """Fingerprint of what is known of a partition without reading it: 8 hexadecimal digits, as MLflow's own.

    Not of the names of its files and folders: another attempt with the same result has others.
    """
    about = [partition.table, partition.ds, partition.rows, partition.info, sorted(partition.files.values())]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]


def _kind(kind: pa.DataType) -> DataType | Array | Object:
    """The type of a column among those that MLflow knows."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Object, Property

    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return Array(_kind(kind.value_type))
    if pa.types.is_struct(kind):
        return Object([Property(field.name, _kind(field.type)) for field in kind])
    if pa.types.is_integer(kind):
        return DataType.long if kind.bit_width == 64 else DataType.integer
    if pa.types.is_floating(kind):
        return DataType.double if kind.bit_width == 64 else DataType.float
    if pa.types.is_temporal(kind):
        return DataType.datetime
    if pa.types.is_boolean(kind):
        return DataType.boolean
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return DataType.binary
    return DataType.string
