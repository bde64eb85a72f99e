"""Histories continued day by day are those built from the whole log."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from jobs.platform.deletions import add_deletions, read_deletions
from jobs.platform.errors import WarehouseError
from jobs.platform.profile import HistoriesConfig
from jobs.platform.user_histories import UserHistories
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
        "arrived": pa.string(),
    }
)
Event = dict[str, Any]
Update, Accept, At = Callable[..., Partition], Callable[..., None], Callable[..., int]


@pytest.fixture
def update(spark: SparkSession, warehouse: Warehouse) -> Update:
    def run(ds: str, config: HistoriesConfig = CONFIG) -> Partition:
        return update_histories(spark, warehouse, ds, config, plan_update(warehouse, ds, config))

    return run


@pytest.fixture
def accept(warehouse: Warehouse) -> Accept:
    """``accept(ds, events)``: write a day of accepted_events."""

    def write(ds: str, events: list[Event]) -> None:
        previous = warehouse.latest("accepted_events", until=ds, strict=True)
        with warehouse.write_partition("accepted_events", ds) as part:
            part.write_table(pa.Table.from_pylist([{"arrived": ds} | event for event in events], schema=SCHEMA))
            part.info |= {
                "previous": previous.ds if previous else None,
                "content": repr(sorted(map(repr, events))),
            }

    return write


def random_days(at: At, seed: int) -> dict[str, list[Event]]:
    """A few users, many equal timestamps, some events with seq, some that came days late; days differ in size."""
    rng = random.Random(seed)
    return {
        ds: [
            {
                "user_id": f"u{rng.randrange(6)}",
                "item_index": rng.randrange(9),
                "timestamp": at(rng.choice([ds, ds, *DAYS[: place + 1]]), rng.randrange(4)),
                "seq": rng.choice([None, rng.randrange(50)]),
                "weight": float(rng.randrange(3)),
            }
            for _ in range(rng.randrange(1, rng.choice([3, 25])))
        ]
        for place, ds in enumerate(DAYS)
    }


def histories(warehouse: Warehouse, ds: str) -> dict[str, dict[str, Any]]:
    return {row["user_id"]: row for row in UserHistories.find(warehouse, ds).read().to_pylist()}


def forget(warehouse: Warehouse, table: str = "histories") -> None:
    for ds in DAYS:
        (Path(warehouse.uri) / table / f"ds={ds}" / "_current.json").unlink(missing_ok=True)


@pytest.mark.parametrize("seed", range(4))
def test_days_continued_late_skipped_and_replayed_are_a_rebuild(
    update: Update,
    accept: Accept,
    warehouse: Warehouse,
    at: At,
    seed: int,
) -> None:
    rng, days = random.Random(100 + seed), random_days(at, seed)
    for ds, events in days.items():
        accept(ds, events)
    done = sorted(rng.sample(DAYS[:-1], rng.randrange(1, 4)))
    for ds in [*done, rng.choice(done)]:  # days are skipped, and one is run again
        update(ds)
    if seed % 2:  # a past day gets other events, and is run again, alone
        days[done[0]] = [*days[done[0]], days[done[0]][0]]
        accept(done[0], days[done[0]])
        for ds in DAYS[DAYS.index(done[0]) + 1 :]:
            accept(ds, days[ds])
        update(done[0])
    continued = update(DAYS[3])
    found = UserHistories.find(warehouse, DAYS[3]).read()
    forget(warehouse)
    assert plan_update(warehouse, DAYS[3], CONFIG).reason == "built from the whole log"
    rebuilt = update(DAYS[3])
    assert found.equals(UserHistories.find(warehouse, DAYS[3]).read())
    for name in ("lineage", "users", "events"):
        assert continued.info[name] == rebuilt.info[name]

    log = [event for events in days.values() for event in events]
    rows = histories(warehouse, DAYS[3])
    assert set(rows) == {event["user_id"] for event in log}
    assert (rebuilt.info["users"], rebuilt.info["events"]) == (len(rows), len(log))
    for user, row in rows.items():
        own = [event for event in log if event["user_id"] == user]
        assert row["n_events"] == len(own)
        newest = sorted(event["timestamp"] for event in own)[-CONFIG.max_length :]
        assert row["timestamps"] == newest
        kept = list(zip(row["item_indices"], row["timestamps"], row["weights"], strict=True))
        assert all(kept.count(event) <= len([e for e in own if _key(e) == event]) for event in set(kept))


def test_a_layer_takes_in_those_that_are_no_larger(
    update: Update, accept: Accept, warehouse: Warehouse, at: At
) -> None:
    sizes = dict(zip(DAYS, (9, 2, 1, 1), strict=True))
    for ds, size in sizes.items():
        accept(ds, [{"user_id": f"u{n}", "item_index": n, "timestamp": at(ds), "weight": 1.0} for n in range(size)])
    seen = []
    for ds in DAYS:
        written = update(ds)
        seen.append((written.info["layer_events"], [layer["ds"] for layer in written.info["layers"]]))
    assert seen == [(9, []), (2, DAYS[:1]), (1, DAYS[:2]), (4, DAYS[:1])]
    assert (written.info["users"], written.info["events"], written.info["new_events"]) == (9, 13, 1)
    assert plan_update(warehouse, DAYS[3], CONFIG).reason == f"continued from ds={DAYS[2]} in 2 layers"


def test_people_who_asked_are_left_out_and_stay_out(
    update: Update, accept: Accept, warehouse: Warehouse, at: At
) -> None:
    for place, ds in enumerate(DAYS):
        users = ["both", "old", "stays"] * 3 if place == 0 else ["both", "new", "stays"][: 4 - place]
        accept(ds, [{"user_id": user, "item_index": 1, "timestamp": at(ds), "weight": 1.0} for user in users])
    update(DAYS[0])
    update(DAYS[1])
    add_deletions(warehouse, ["nobody"])
    assert len(update(DAYS[1]).info["layers"]) == 1, "nobody's events are in the layer below"
    add_deletions(warehouse, ["both"])
    written = update(DAYS[2])
    assert (written.info["layers"], written.info["users"]) == ([], 3)
    assert set(histories(warehouse, DAYS[2])) == {"old", "new", "stays"}
    assert update(DAYS[3]).info["new_events"] == 1  # of somebody who is gone
    assert set(histories(warehouse, DAYS[3])) == {"old", "new", "stays"}
    assert written.info["deletions"] == read_deletions(warehouse).fingerprint
    forget(warehouse)
    update(DAYS[3])
    assert set(histories(warehouse, DAYS[3])) == {"old", "new", "stays"}


@pytest.mark.parametrize("max_days", [1, 2, 3])
def test_retention_drops_old_events_and_who_has_no_others(
    update: Update,
    accept: Accept,
    warehouse: Warehouse,
    at: At,
    max_days: int,
) -> None:
    config = HistoriesConfig(max_length=5, buckets=3, max_days=max_days)
    days = random_days(at, 11)
    days[DAYS[0]].append({"user_id": "gone", "item_index": 1, "timestamp": at(DAYS[0]), "weight": 1.0})
    for ds, events in days.items():
        accept(ds, events)
        written = update(ds, config)
    continued, cut = UserHistories.find(warehouse, DAYS[3]).read(), at(DAYS[4 - max_days])
    forget(warehouse)
    rebuilt = update(DAYS[3], config)
    assert continued.equals(UserHistories.find(warehouse, DAYS[3]).read())
    assert written.info["users"] == rebuilt.info["users"] == continued.num_rows
    log = [event for events in days.values() for event in events]
    rows = histories(warehouse, DAYS[3])
    assert set(rows) == {event["user_id"] for event in log if event["timestamp"] >= cut} and "gone" not in rows
    for user, row in rows.items():
        own = [event["timestamp"] for event in log if event["user_id"] == user]
        assert row["n_events"] == len(own)
        assert row["timestamps"] == [time for time in sorted(own)[-5:] if time >= cut]


def test_a_layer_that_changed_under_later_days_is_refused(
    update: Update, accept: Accept, warehouse: Warehouse, at: At
) -> None:
    event = {"user_id": "u", "item_index": 1, "timestamp": at(DAYS[0]), "weight": 1.0}
    accept(DAYS[0], [event, event])
    accept(DAYS[1], [event | {"timestamp": at(DAYS[1])}])
    update(DAYS[0])
    update(DAYS[1])
    accept(DAYS[0], [event])
    update(DAYS[0])
    message = (
        f"histories/ds={DAYS[1]}: seen that histories/ds={DAYS[0]}, which they are built on, was run again with "
        f"other events, deletions or settings; allowed: as it was; run update_histories for ds={DAYS[1]} again"
    )
    with pytest.raises(WarehouseError, match=message):
        UserHistories.find(warehouse, DAYS[1])
    accept(DAYS[0], [event, event])
    update(DAYS[0])
    assert len(update(DAYS[1]).info["layers"]) == 1
    update(DAYS[0], HistoriesConfig(max_length=5, buckets=2))
    with pytest.raises(WarehouseError, match=message):
        UserHistories.find(warehouse, DAYS[1])
    assert plan_update(warehouse, DAYS[1], CONFIG).reason.startswith("rebuilt from the whole log")


def _key(event: Event) -> tuple[int, int, float]:
    return event["item_index"], event["timestamp"], event["weight"]


def test_buckets_hold_sorted_users_in_one_file_each(
    update: Update, accept: Accept, warehouse: Warehouse, at: At
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
    update: Update, accept: Accept, warehouse: Warehouse, at: At
) -> None:
    now = at(DAYS[0])
    items = list(range(12))
    ordered = [{"user_id": "seq", "item_index": i, "timestamp": now, "seq": 100 - i, "weight": 1.0} for i in items]
    loose = [{"user_id": f"u{u}", "item_index": i, "timestamp": now, "weight": 1.0} for u in range(8) for i in items]
    accept(DAYS[0], [*ordered, *loose])
    update(DAYS[0], HistoriesConfig(max_length=12, buckets=1))
    found = histories(warehouse, DAYS[0])
    assert found.pop("seq")["item_indices"] == items[::-1]
    orders = {tuple(row["item_indices"]) for row in found.values()}
    assert len(orders) == 8
    assert tuple(items) not in orders


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"buckets": 2}, "rebuilt from the whole log because histories.buckets changed from 3 to 2"),
        ({"max_days": 1}, "rebuilt from the whole log because histories.max_days changed from None to 1"),
        ({"max_length": 9}, "rebuilt from the whole log because histories.max_length changed from 5 to 9"),
    ],
)
def test_a_changed_setting_rebuilds(
    update: Update,
    accept: Accept,
    warehouse: Warehouse,
    at: At,
    change: dict[str, int],
    reason: str,
) -> None:
    days = random_days(at, 7)
    for ds in DAYS[:2]:
        accept(ds, days[ds])
    update(DAYS[0])
    config = HistoriesConfig(**{"max_length": 5, "buckets": 3} | change)
    plan = plan_update(warehouse, DAYS[1], config)
    assert (plan.layers, plan.reason) == ((), reason)
    assert [part.ds for part in plan.log] == DAYS[:2]
    update(DAYS[1], config)
    found = histories(warehouse, DAYS[1])
    events = [event for ds in DAYS[:2] for event in days[ds]]
    for user, row in found.items():
        own = [event["timestamp"] for event in events if event["user_id"] == user]
        assert row["n_events"] == len(own)
        recent = [time for time in own if config.max_days is None or time >= at(DAYS[1])]
        assert len(row["item_indices"]) == min(len(recent), config.max_length)


def test_events_that_changed_after_the_base_rebuild(
    update: Update, accept: Accept, warehouse: Warehouse, at: At
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
    update(DAYS[1])
    assert histories(warehouse, DAYS[1])["u"]["item_indices"] == [2, 1]
