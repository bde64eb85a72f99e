"""What check_inputs says of its input files before it starts Spark."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.check_inputs import find_inputs
from jobs.platform.errors import MissingPartition, SchemaError, WarehouseError
from jobs.platform.warehouse import Warehouse

Put = Callable[..., Path]
At = Callable[..., int]
D1, D2, D3 = "2024-02-28", "2024-02-29", "2024-03-01"
ITEMS = [{"item_id": f"i{n}", "title": f"Thing {n}"} for n in range(6)]


def test_missing_partitions(warehouse: Warehouse, day: Put, put_items: Put) -> None:
    with pytest.raises(MissingPartition, match=f"missing partition events/ds={D1}: the table has no data yet"):
        find_inputs(warehouse, D1)
    day(D1, ["i0"])
    message = f"missing partition events/ds={D2}: newest there is ds={D1}; choose a day from {D1} to {D1}"
    with pytest.raises(MissingPartition, match=message):
        find_inputs(warehouse, D2)
    with pytest.raises(MissingPartition, match="missing partition items"):
        find_inputs(warehouse, D1)
    put_items(ITEMS)
    find_inputs(warehouse, D1)


def test_empty_tables(warehouse: Warehouse, day: Put, put_events: Put, put_items: Put) -> None:
    put_items(ITEMS)
    day(D1, ["i0"])
    put_events(D2, [])
    with pytest.raises(WarehouseError, match=f"table events, partition ds={D2}: seen 0 rows; allowed: 1 or more"):
        find_inputs(warehouse, D2)
    put_items([])
    with pytest.raises(WarehouseError, match="table items: seen 0 rows; allowed: 1 or more"):
        find_inputs(warehouse, D1)


@pytest.mark.parametrize(
    ("column", "kind", "value", "message"),
    [
        ("user_id", pa.int64(), 1, "seen type int64 in ds={ds}/part-0.parquet; allowed: string"),
        ("item_id", pa.int64(), 1, "seen type int64 in ds={ds}/part-0.parquet; allowed: string"),
        ("timestamp", pa.timestamp("us"), 1, "seen type timestamp in ds={ds}/part-0.parquet; allowed: int64"),
        (
            "weight",
            pa.string(),
            "1",
            "seen type string in ds={ds}/part-0.parquet; allowed: float or double, or no such",
        ),
        (
            "seq",
            pa.int64(),
            1,
            "seen type int64 in ds={ds}/part-0.parquet; allowed: int32, or no such column",
        ),
    ],
)
def test_a_wrong_type_in_events(
    warehouse: Warehouse,
    put_events: Put,
    put_items: Put,
    at: At,
    column: str,
    kind: pa.DataType,
    value: Any,
    message: str,
) -> None:
    put_items(ITEMS)
    put_events(D1, [{"user_id": "u", "item_id": "i0", "timestamp": at(D1)} | {column: value}], **{column: kind})
    with pytest.raises(SchemaError) as caught:
        find_inputs(warehouse, D1)
    assert str(caught.value).startswith(f"table events, column {column}: {message.format(ds=D1)}")


def test_missing_columns(warehouse: Warehouse, day: Put, put_events: Put, put_items: Put, at: At) -> None:
    put_items([{"item_id": "i0", "description": "no title"}])
    day(D1, ["i0"])
    with pytest.raises(SchemaError) as caught:
        find_inputs(warehouse, D1)
    assert str(caught.value) == (
        "table items, column title: seen no such column among item_id, description in part-0.parquet; allowed: string"
    )
    put_events(D1, [{"user_id": "u", "item_id": "i0"}])
    with pytest.raises(SchemaError, match="table events, column timestamp: seen no such column among user_id, item_id"):
        find_inputs(warehouse, D1)


def test_an_import_that_was_killed_half_moved_is_finished_first(warehouse: Warehouse, day: Put, put_items: Put) -> None:
    put_items(ITEMS)
    for ds in (D1, D2, D3):
        day(ds, ["i0"])
    folder = Path(warehouse.uri) / ".import" / "killed"
    (folder / "events").mkdir(parents=True)
    (Path(warehouse.uri) / "events" / f"ds={D2}").rename(folder / "events" / f"ds={D2}")
    (folder / "_complete.json").write_text(json.dumps({f"events/ds={D2}": ["part-0.parquet"]}))
    assert find_inputs(warehouse, D3).days == {D1: 1, D2: 1, D3: 1}
    assert not folder.exists()
