"""Histories continued day by day are, byte for byte, those built from the whole log."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from jobs.platform.profile import HistoriesConfig
from jobs.platform.warehouse import Partition, Warehouse
from jobs.update_histories import plan_update, update_histories

DAYS = ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01"]
CONFIG = HistoriesConfig(max_length=5, buckets=3)
SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_index": pa.int32(),
        "timestamp": pa.int64(),
        "seq": pa.int32(),
        "event": pa.string(),
        "weight": pa.float32(),
    }
)
Event = dict[str, Any]


@pytest.fixture
def update(spark: SparkSession, warehouse: Warehouse) -> Callable[..., Partition]:
    def run(ds: str, config: HistoriesConfig = CONFIG) -> Partition:
        return update_histories(spark, warehouse, ds, config, plan_update(warehouse, ds, config))

    return run


@pytest.fixture
def accept(warehouse: Warehouse) -> Callable[..., None]:
    """``accept(ds, events)``: write a day of accepted_events."""

    def write(ds: str, events: list[Event]) -> None:
        previous = warehouse.latest("accepted_events", until=ds, strict=True)
        with warehouse.write_partition("accepted_events", ds) as part:
            part.write_table(pa.Table.from_pylist(events, schema=SCHEMA))
            part.info |= {
                "previous": previous.ds if previous else None,
                "content": repr(sorted(map(repr, events))),
            }

    return write


def random_days(at: Callable[..., int], seed: int) -> dict[str, list[Event]]:
    """A few users, many equal timestamps, some events with seq."""
    rng = random.Random(seed)
    return {
        ds: [
            {
                "user_id": f"u{rng.randrange(6)}",
                "item_index": rng.randrange(9),
                "timestamp": at(ds, rng.randrange(4)),
                "seq": rng.choice([None, rng.randrange(50)]),
                "weight": float(rng.randrange(3)),
            }
            for _ in range(rng.randrange(1, 25))
        ]
        for ds in DAYS
    }


def digests(partition: Partition) -> dict[str, str]:
    return {name: hashlib.sha256((Path(partition.path) / name).read_bytes()).hexdigest() for name in partition.files}


def histories(warehouse: Warehouse, partition: Partition) -> dict[str, dict[str, Any]]:
    return {row["user_id"]: row for row in warehouse.read(partition).to_pylist()}


@pytest.mark.parametrize("seed", range(2))
def test_continued_is_rebuilt(
    update: Callable[..., Partition],
    accept: Callable[..., None],
    warehouse: Warehouse,
    at: Callable[..., int],
    seed: int,
) -> None:
    days = random_days(at, seed)
    for ds, events in days.items():
        accept(ds, events)
    update(DAYS[0])
    update(DAYS[2])  # a day is skipped
    assert plan_update(warehouse, DAYS[3], CONFIG).reason == f"continued from ds={DAYS[2]}"
    continued = update(DAYS[3])
    for ds in DAYS:
        for path in (Path(warehouse.uri) / "histories").glob(f"ds={ds}/_current.json"):
            path.unlink()
    assert plan_update(warehouse, DAYS[3], CONFIG).reason == "built from the whole log"
    rebuilt = update(DAYS[3])
    assert digests(continued) == digests(rebuilt)
    assert continued.info["lineage"] == rebuilt.info["lineage"]

    log = [event for events in days.values() for event in events]
    found = histories(warehouse, rebuilt)
    assert set(found) == {event["user_id"] for event in log}
    for user, row in found.items():
        own = [event for event in log if event["user_id"] == user]
        assert row["n_events"] == len(own)
        newest = sorted(event["timestamp"] for event in own)[-CONFIG.max_length :]
        assert row["timestamps"] == newest
        kept = list(zip(row["item_indices"], row["timestamps"], row["weights"], strict=True))
        assert all(kept.count(event) <= len([e for e in own if _key(e) == event]) for event in set(kept))
    assert rebuilt.info["users"] == len(found)
    assert rebuilt.info["events"] == len(log)


def _key(event: Event) -> tuple[int, int, float]:
    return event["item_index"], event["timestamp"], event["weight"]


def test_buckets_hold_sorted_users_in_one_file_each(
    update: Callable[..., Partition],
    accept: Callable[..., None],
    warehouse: Warehouse,
    at: Callable[..., int],
) -> None:
    from binascii import crc32

    accept(
        DAYS[0],
        [{"user_id": f"u{n}", "item_index": 0, "timestamp": at(DAYS[0]), "weight": 1.0} for n in range(40)],
    )
    part = update(DAYS[0])
    assert sorted(part.files) == [f"bucket={n:03}/part-00000.parquet" for n in range(3)]
    for name in part.files:
        one = Partition("histories", DAYS[0], part.path, part.arrow_path, part.folder, {name: 1})
        table = warehouse.read(one)
        users = table["user_id"].to_pylist()
        assert users == sorted(users)
        assert {crc32(user.encode()) % 3 for user in users} == {int(name[7:10])}
    types = {name: str(kind) for name, kind in zip(table.column_names, table.schema.types, strict=True)}
    assert types == {
        "user_id": "string",
        "item_indices": "list<element: int32>",
        "timestamps": "list<element: int64>",
        "weights": "list<element: float>",
        "n_events": "int64",
    }


def test_ties_follow_seq_and_else_a_hash_that_is_not_the_item(
    update: Callable[..., Partition],
    accept: Callable[..., None],
    warehouse: Warehouse,
    at: Callable[..., int],
) -> None:
    now = at(DAYS[0])
    items = list(range(12))
    ordered = [{"user_id": "seq", "item_index": i, "timestamp": now, "seq": 100 - i, "weight": 1.0} for i in items]
    loose = [{"user_id": f"u{u}", "item_index": i, "timestamp": now, "weight": 1.0} for u in range(8) for i in items]
    accept(DAYS[0], [*ordered, *loose])
    found = histories(warehouse, update(DAYS[0], HistoriesConfig(max_length=12, buckets=1)))
    assert found.pop("seq")["item_indices"] == items[::-1]
    orders = {tuple(row["item_indices"]) for row in found.values()}
    assert len(orders) == 8
    assert tuple(items) not in orders


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"buckets": 2}, "rebuilt from the whole log because histories.buckets changed from 3 to 2"),
        ({"max_length": 9}, "rebuilt from the whole log because histories.max_length changed from 5 to 9"),
    ],
)
def test_a_changed_setting_rebuilds(
    update: Callable[..., Partition],
    accept: Callable[..., None],
    warehouse: Warehouse,
    at: Callable[..., int],
    change: dict[str, int],
    reason: str,
) -> None:
    days = random_days(at, 7)
    for ds in DAYS[:2]:
        accept(ds, days[ds])
    update(DAYS[0])
    config = HistoriesConfig(**{"max_length": 5, "buckets": 3} | change)
    plan = plan_update(warehouse, DAYS[1], config)
    assert (plan.base, plan.reason) == (None, reason)
    assert [part.ds for part in plan.delta] == DAYS[:2]
    found = histories(warehouse, update(DAYS[1], config))
    events = [event for ds in DAYS[:2] for event in days[ds]]
    for user, row in found.items():
        own = sum(event["user_id"] == user for event in events)
        assert row["n_events"] == own
        assert len(row["item_indices"]) == min(own, config.max_length)


def test_events_that_changed_after_the_base_rebuild(
    update: Callable[..., Partition],
    accept: Callable[..., None],
    warehouse: Warehouse,
    at: Callable[..., int],
) -> None:
    event = {"user_id": "u", "item_index": 1, "timestamp": at(DAYS[0]), "weight": 1.0}
    accept(DAYS[0], [event])
    update(DAYS[0])
    accept(DAYS[0], [event | {"item_index": 2}])
    accept(DAYS[1], [event | {"timestamp": at(DAYS[1])}])
    plan = plan_update(warehouse, DAYS[1], CONFIG)
    assert plan.reason == (
        f"rebuilt from the whole log because the events up to ds={DAYS[0]} changed after its histories were built"
    )
    assert histories(warehouse, update(DAYS[1]))["u"]["item_indices"] == [2, 1]
