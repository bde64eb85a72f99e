"""Small tables to feed the jobs with."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.platform.warehouse import Warehouse
from tests.object_store import ObjectStore


@pytest.fixture(scope="session")
def spark(spark: SparkSession) -> SparkSession:
    """Return the session, set for tables of a few rows."""
    spark.conf.set("spark.sql.shuffle.partitions", "2")
    spark.conf.set("spark.sql.adaptive.enabled", "false")
    return spark


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Start the S3-compatible store that all tests share."""
    store = ObjectStore(tmp_path_factory.mktemp("store") / "log")
    try:
        store.start()
        yield store
    finally:
        store.stop()


@pytest.fixture
def bucket(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a bucket of one's own; the environment names the store, and a cache of one's own."""
    for name, value in (object_store.environment | {"HYMIREC_CACHE": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    object_store.create_bucket(name)
    return name


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse"))


def midnight(ds: str) -> int:
    """Seconds since the epoch at the start of day ``ds``."""
    return int(datetime.datetime.fromisoformat(ds).replace(tzinfo=datetime.UTC).timestamp())


@pytest.fixture
def at() -> Callable[[str, int], int]:
    """``at(ds, seconds)``: a timestamp in day ``ds``."""
    return lambda ds, seconds=0: midnight(ds) + seconds


@pytest.fixture
def put_events(warehouse: Warehouse) -> Callable[..., Path]:
    """``put_events(ds, rows, **types)``: write a day of the input table ``events``."""

    def put(ds: str, rows: Sequence[dict[str, Any]], **types: pa.DataType) -> Path:
        kinds = {
            "user_id": pa.string(),
            "item_id": pa.string(),
            "timestamp": pa.int64(),
            "event": pa.string(),
            "weight": pa.float32(),
            "seq": pa.int32(),
        } | types
        return _put(Path(warehouse.uri) / "events" / f"ds={ds}" / "part-0.parquet", rows, kinds)

    return put


@pytest.fixture
def put_items(warehouse: Warehouse) -> Callable[..., Path]:
    """``put_items(rows, **types)``: write the input table ``items``."""

    def put(rows: Sequence[dict[str, Any]], **types: pa.DataType) -> Path:
        kinds = {
            "item_id": pa.string(),
            "title": pa.string(),
            "description": pa.string(),
            "category": pa.string(),
            "updated_at": pa.int64(),
        } | types
        return _put(Path(warehouse.uri) / "items" / "part-0.parquet", rows, kinds)

    return put


def _put(path: Path, rows: Sequence[dict[str, Any]], kinds: dict[str, pa.DataType]) -> Path:
    """Write rows with the columns that occur in them (all of ``kinds`` when there are no rows)."""
    names = [name for name in kinds if not rows or any(name in row for row in rows)]
    schema = pa.schema([(name, kinds[name]) for name in names])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
    return path


@pytest.fixture
def day(put_events: Callable[..., Path], at: Callable[..., int]) -> Callable[..., Path]:
    """``day(ds, item_ids)``: a good day, one event an item."""

    def put(ds: str, items: list[str], **more: Any) -> Path:
        rows = [{"user_id": f"u{n % 2}", "item_id": i, "timestamp": at(ds, n)} for n, i in enumerate(items)]
        return put_events(ds, [row | more for row in rows])

    return put
