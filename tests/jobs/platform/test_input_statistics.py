"""Statistics of events are what plain counting gives, by day and in any order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from pyspark.sql import SparkSession

from jobs.platform.input_statistics import MOST_VALUES, NONE, OTHER, Statistics, event_statistics

D1, D2, D3 = "2024-02-28", "2024-02-29", "2024-03-01"
Rows = list[dict[str, Any]]


def measure(spark: SparkSession, events: Rows, catalog: Rows, days: list[str]) -> dict[str, Statistics]:
    rows = spark.createDataFrame(
        events,  # type: ignore[type-var]
        "user_id string, item_index int, timestamp bigint, seq int, event string, arrived string",
    )
    items = spark.createDataFrame(catalog, "item_index int, category string, first_ds string")  # type: ignore[type-var]
    return event_statistics(rows, items, days)


def test_statistics_of_each_day(spark: SparkSession, at: Callable[..., int]) -> None:
    catalog = [
        {"item_index": 0, "category": "a", "first_ds": D1},
        {"item_index": 1, "category": None, "first_ds": D2},
        {"item_index": 2, "category": "a", "first_ds": D3},
    ]
    row = {"user_id": "u", "item_index": 0, "timestamp": at(D1), "seq": None, "event": None, "arrived": D2}
    events = [
        row | {"arrived": D1},
        row,  # a day late
        row | {"timestamp": at(D3) - 1, "user_id": "v", "item_index": 1, "seq": 4, "event": "buy"},
        row | {"timestamp": at(D2, 3600), "item_index": 2, "event": "buy"},
        row | {"timestamp": at(D2, 3601), "item_index": 2, "event": "view"},
        row | {"timestamp": at(D3), "item_index": 1, "arrived": D3},  # not asked for
    ]
    random.Random(0).shuffle(events)
    found = measure(spark, events, catalog, [D1, D2])
    assert list(found) == [D1, D2]
    assert found[D1] == {
        **{"rows": 1, "users": 1, "items": 1, "top_user": 1.0, "top_item": 1.0, "new_items": 1.0, "no_seq": 1.0},
        **{"event": {NONE: 1}, "category": {"a": 1}, "hour": {"00": 1}},
    }
    assert found[D2] == {
        **{"rows": 4, "users": 2, "items": 3, "top_user": 0.75, "top_item": 0.5, "new_items": 0.75, "no_seq": 0.75},
        **{"event": {"buy": 2, "view": 1, NONE: 1}, "category": {"a": 3, NONE: 1}},
        "hour": {"01": 2, "23": 1, "00": 1},
    }


def test_rare_values_are_counted_together(spark: SparkSession, at: Callable[..., int]) -> None:
    extra = 7
    catalog = [
        {"item_index": n, "category": f"c{n:03d}", "first_ds": D1} for n in range(MOST_VALUES + extra)
    ]  # item n has one event, but for the first few
    frequent = Counter(dict.fromkeys(range(5), 3))
    events = [
        {"user_id": f"u{n}", "item_index": n, "timestamp": at(D1, n), "seq": 0, "event": "view", "arrived": D1}
        for n in range(len(catalog))
        for _ in range(frequent[n] or 1)
    ]
    [found] = measure(spark, events, catalog, [D1]).values()
    assert len(found["category"]) == MOST_VALUES + 1
    assert found["category"][OTHER] == extra
    assert {found["category"][f"c{n:03d}"] for n in range(5)} == {3}
    assert sum(found["category"].values()) == found["rows"] == len(events)
