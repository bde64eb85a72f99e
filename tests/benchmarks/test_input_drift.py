"""The benchmark counts days that stop, and puts a copy of a day back to where it came from."""

from __future__ import annotations

import datetime

from benchmarks.input_drift import APART, as_it_is, damaged
from jobs.platform.input_statistics import Statistics


def days(number: int, start: str, rows: int = 4000) -> dict[str, Statistics]:
    facts: Statistics = {"rows": rows, "users": 300, "items": 900, "top_user": 0.1, "top_item": 0.1, "new_items": 0.1}
    facts |= {"no_seq": 1.0, "event": {"purchase": rows}, "category": {"a": rows}, "hour": {"12": rows}}
    first = datetime.date.fromisoformat(start)
    return {str(first + datetime.timedelta(days=n)): dict(facts) for n in range(number)}


def test_false_alarms_are_counted_without_the_last_day() -> None:
    true = days(20, "2020-01-01")
    true["2020-01-10"]["rows"] = 100
    true["2020-01-20"]["rows"] = 100
    row = as_it_is(true)
    assert (row["days"], row["stopped"], row["cut_day_stopped"]) == (12, 1, True)
    assert row["farthest"]["events.rows"] > 1 > row["farthest"]["events.users"]


def test_a_damaged_copy_is_compared_with_the_days_before_its_own() -> None:
    true = days(20, "2020-01-01") | days(20, "2020-01-21", rows=40_000)
    moved = str(datetime.date(2020, 1, 15) + datetime.timedelta(days=APART))
    for rows, by in ((4000, {}), (40_000, {"rows": 1})):
        row = damaged("x", days(1, moved, rows), true, APART)
        assert (row["days"], row["stopped"], row["by"]) == (1, len(by), by)
