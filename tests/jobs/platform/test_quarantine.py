"""How many bad rows are too many, and how many good ones too few."""

from __future__ import annotations

import pytest

from jobs.platform.catalog import SUPERSEDED
from jobs.platform.errors import ContractBreach
from jobs.platform.quarantine import Counts, check_least, check_shares, of_day

COUNTS: Counts = {
    ("events", "user_id", "null or empty"): 3,
    ("items", "item_id", "duplicate of another row"): 1,
    ("items", "item_id", SUPERSEDED): 50,
}


def test_a_share_may_be_reached_but_not_exceeded() -> None:
    check_shares("2024-02-29", COUNTS, {"events": 300, "items": 100}, 0.01)
    check_shares("2024-02-29", {}, {"events": 300, "items": 100}, 0.0)


def test_each_table_is_judged_by_itself() -> None:
    with pytest.raises(ContractBreach) as caught:
        check_shares("2024-02-29", COUNTS, {"events": 1_000_000, "items": 7}, 0.01)
    assert str(caught.value) == (
        "table items: seen 1 bad of 7 rows (column item_id: 1 duplicate of another row); "
        "allowed: a share of 0.01 (contract.max_bad_share); the bad rows are in quarantine/ds=2024-02-29"
    )
    message = "table events: seen 3 bad of 10 rows .*; table items: seen 1 bad of 7"
    with pytest.raises(ContractBreach, match=message):
        check_shares("2024-02-29", COUNTS, {"events": 10, "items": 7}, 0.01)


def test_of_many_bad_days_some_are_named() -> None:
    days = [of_day("events", f"2024-02-{day:02d}") for day in range(1, 10)]
    counts: Counts = {(day, "user_id", "null or empty"): 1 for day in days}
    with pytest.raises(ContractBreach, match=r"ds=2024-02-06: seen 1 bad of 2 rows .*; and 3 more; allowed") as caught:
        check_shares("2024-02-29", counts, dict.fromkeys(days, 2), 0.01)
    assert str(caught.value).count("seen") == 6


def test_too_few_good_rows() -> None:
    check_least({"items": 2, "events": 3}, 2)
    with pytest.raises(ContractBreach, match="table events: seen 1 good rows; allowed: 2 or more"):
        check_least({"items": 2, "events": 1}, 2)
