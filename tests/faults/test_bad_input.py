"""Generated bad input: nothing wrong is let through, nothing ends in a traceback. `make bench-faults` tries more."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from benchmarks.bad_input import fuzz
from benchmarks.bad_rows import MIDNIGHT, event_faults

CASES, SEED = 800, 1


def test_no_case_is_met_wrongly(spark: SparkSession) -> None:
    found = fuzz(CASES, SEED)
    assert not found["wrong"]
    assert found["tried"] >= CASES and found["survived"] == found["tried"]
    assert set(found["kinds"]) == {"name", "columns", "profile", "broken file", "row", "imported file", "imported line"}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, None),
        ({"user_id": "\u2003"}, "user_id"),
        ({"item_id": None}, "item_id"),
        ({"item_id": "unknown"}, "item_id"),
        ({"timestamp": MIDNIGHT - 1}, "timestamp"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": 1e39}, "weight"),
        ({"weight": -0.0}, None),
    ],
)
def test_the_oracle_knows_good_from_bad(change: dict[str, object], fault: str | None) -> None:
    row = {"user_id": "u", "item_id": "i", "timestamp": MIDNIGHT, "weight": None} | change
    faults = event_faults(row, {"i"}, set())
    assert {column for column, _ in faults} == ({fault} if fault else set())
