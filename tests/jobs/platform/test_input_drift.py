"""A day that is like the days before it passes, one that is not is a breach, and what was decided about it is kept."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.platform.errors import ContractBreach
from jobs.platform.input_drift import Drift, compare_catalog, compare_days, distance, stop_on_breach, usual_days
from jobs.platform.input_statistics import MOST_VALUES, OTHER, Statistics
from jobs.platform.profile import ContractConfig
from jobs.platform.warehouse import Partition

CONTRACT = ContractConfig()
CATEGORIES = {"grocery": 600, "drugs": 250, "meat": 150}
HOURS = {"08": 100, "12": 400, "18": 500}
COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10_000), min_size=1)


def a_day(**other: Any) -> Statistics:
    usual: Statistics = {
        "rows": 1000,
        "users": 100,
        "items": 400,
        "top_user": 0.03,
        "top_item": 0.02,
        "new_items": 0.01,
    }
    return usual | {"no_seq": 0.0, "event": {"view": 900, "buy": 100}, "category": CATEGORIES, "hour": HOURS} | other


def days(number: int, start: str = "2024-02-01", **other: Any) -> dict[str, Statistics]:
    first = datetime.date.fromisoformat(start)
    return {str(first + datetime.timedelta(days=n)): a_day(**other) for n in range(number)}


def breaches(day: Statistics, before: dict[str, Statistics] | None = None) -> list[str]:
    found = compare_days({"2024-03-01": day}, days(28) if before is None else before, ["2024-03-01"], CONTRACT)
    assert not found.unchecked
    return [breach.figure for breach in found.breaches]


@given(COUNTS, COUNTS)
def test_the_distance_is_a_metric_from_0_to_1(one: dict[str, int], other: dict[str, int]) -> None:
    far = distance(one, other)
    assert 0 <= far <= 1
    assert far == pytest.approx(distance(other, one), abs=1e-9)
    assert distance(one, {value: 3 * count for value, count in one.items()}) == pytest.approx(0, abs=1e-7)
    assert distance(one, {value.upper(): count for value, count in other.items()}) == pytest.approx(1)


@given(COUNTS, COUNTS, COUNTS)
def test_the_distance_keeps_the_triangle(a: dict[str, int], b: dict[str, int], c: dict[str, int]) -> None:
    assert distance(a, c) <= distance(a, b) + distance(b, c) + 1e-7


def test_the_distance_of_known_distributions() -> None:
    # Half of the mass moves: entropy of (3/4, 1/4) less the mean of those of (1/2, 1/2) and (1, 0).
    expected = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5
    assert distance({"a": 5, "b": 5}, {"a": 7}) == pytest.approx(np.sqrt(expected))


@given(st.integers(0, 2**32 - 1), st.floats(0.6, 1.8))
def test_a_day_that_is_drawn_like_the_others_passes(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)

    def drawn(rows: int) -> Statistics:
        def counts(usual: dict[str, int]) -> dict[str, int]:
            shares = np.array(list(usual.values())) / sum(usual.values())
            return dict(zip(usual, rng.multinomial(rows, shares).tolist(), strict=True))

        return a_day(rows=rows, users=rows // 10, category=counts(CATEGORIES), hour=counts(HOURS))

    before = {day: drawn(int(rng.integers(900, 1300))) for day in days(28)}
    assert breaches(drawn(int(1000 * size)), before) == []


@given(st.integers(0, 2**32 - 1), st.sampled_from([(150, 1.0, 1000), (300, 0.7, 4000), (2000, 1.0, 2000)]))
def test_so_it_does_where_there_are_many_categories(seed: int, case: tuple[int, float, int]) -> None:
    """Genres in all their combinations, or paths in a shop's tree: most of them a few times a day."""
    many, exponent, rows = case
    rng = np.random.default_rng(seed)
    shares = np.arange(1, many + 1) ** -exponent
    shares /= shares.sum()

    def drawn() -> Statistics:
        counts = rng.multinomial(rows, shares)
        top = np.argsort(-counts, kind="stable")[:MOST_VALUES]
        listed = {f"c{n}": int(counts[n]) for n in top if counts[n]}
        return a_day(rows=rows, category=listed | {OTHER: rows - sum(listed.values())})

    assert breaches(drawn(), {day: drawn() for day in days(28)}) == []


@pytest.mark.parametrize(
    ("unlike", "figures"),
    [
        ({"rows": 100, "users": 10, "items": 40}, {"rows", "users", "items"}),
        ({"rows": 3001}, {"rows"}),
        ({"rows": 333}, {"rows"}),
        ({"category": {"grocery": 1000}}, {"category"}),
        ({"category": {"meat": 1000}}, {"category"}),
        ({"category": {"(none)": 1000}}, {"category"}),
        ({"event": {"view": 100, "buy": 900}}, {"event"}),
        ({"hour": {"00": 1000}}, {"hour"}),
        ({"top_user": 0.3}, {"top_user"}),
        ({"top_item": 0.3}, {"top_item"}),
        ({"new_items": 0.9}, {"new_items"}),
        ({"no_seq": 1.0}, {"no_seq"}),
    ],
    ids=lambda value: ",".join(sorted(value)),
)
def test_a_day_unlike_the_others_is_a_breach(unlike: dict[str, Any], figures: set[str]) -> None:
    assert set(breaches(a_day(**unlike))) == figures


@pytest.mark.parametrize("like", [{"rows": 3000}, {"rows": 334}, {"top_user": 0.0}, {"no_seq": 0.2}], ids=str)
def test_limits_may_be_reached_and_shares_may_fall(like: dict[str, Any]) -> None:
    assert breaches(a_day(**like)) == []


def test_one_odd_day_does_not_move_what_is_usual() -> None:
    before = days(28) | {"2024-02-05": a_day(rows=100_000, users=9_000)}
    assert breaches(a_day(), before) == []


@pytest.mark.parametrize(
    ("before", "why"),
    [
        ({}, "0 days to compare with; 7 are needed (contract.min_drift_days)"),
        (days(6), "6 days to compare with; 7 are needed (contract.min_drift_days)"),
        (days(28, rows=999), "a median of 999 events; 1,000 are needed (contract.min_drift_rows)"),
    ],
    ids=["none", "few", "small"],
)
def test_too_little_to_compare_with_is_said(before: dict[str, Statistics], why: str) -> None:
    drift = compare_days({"2024-03-01": a_day(rows=1)}, before, ["2024-03-01"], CONTRACT)
    assert drift.findings == [] and why in str(drift)
    stop_on_breach(drift, CONTRACT)


def test_only_the_newest_days_count() -> None:
    before = days(28, start="2024-01-01", rows=9000) | days(28)
    assert breaches(a_day(), before) == []
    drift = compare_days({"2024-03-01": a_day()}, before, ["2024-03-01"], CONTRACT)
    assert list(drift.usual) == list(days(28))


class TestDecisions:
    ODD, NEXT = "2024-03-01", "2024-03-02"

    def run(self, decision: str) -> Drift:
        """The odd day under a decision, then the next one, which is as odd."""
        contract = ContractConfig(drift=decision)  # type: ignore[arg-type]
        first = compare_days({self.ODD: a_day(rows=9000)}, days(28), [self.ODD], contract)
        assert [breach.figure for breach in first.breaches] == ["rows"]
        stop_on_breach(first, contract)
        chain = [self.partition({day: seen}) for day, seen in (days(28) | first.days).items()]
        return compare_days({self.NEXT: a_day(rows=9000)}, usual_days(chain), [self.NEXT], CONTRACT)

    def partition(self, statistics: dict[str, Statistics]) -> Partition:
        return Partition("accepted_events", max(statistics), "", "", "", {}, info={"statistics": statistics})

    def test_stop(self) -> None:
        with pytest.raises(ContractBreach) as caught:
            self.run("stop")
        assert str(caught.value) == (
            "drift: table events, day 2024-03-01: seen rows 9,000 where 1,000 is the median of 28 days; "
            "allowed: 333 to 3,000 (contract.max_count_ratio 3); nothing was accepted: correct the data and import the "
            "day again; if it is right, run the day with drift: accept (an exception, which later days are not "
            "compared with) or drift: restart (later days are compared from this one on)"
        )

    def test_an_accepted_exception_is_nothing_to_compare_with(self) -> None:
        drift = self.run("accept")
        assert list(drift.usual) == list(days(28))
        assert [breach.figure for breach in drift.breaches] == ["rows"]

    def test_after_a_restart_nothing_before_counts(self) -> None:
        drift = self.run("restart")
        assert list(drift.usual) == [self.ODD]
        assert "1 days to compare with" in drift.unchecked and drift.breaches == []

    def test_a_decision_about_a_day_like_the_others_changes_nothing(self) -> None:
        contract = ContractConfig(drift="restart")
        drift = compare_days({self.ODD: a_day()}, days(28), [self.ODD], contract)
        assert drift.days == {self.ODD: a_day()}

    def test_a_partition_without_statistics_adds_nothing(self) -> None:
        bare = Partition("accepted_events", "2024-01-01", "", "", "", {})
        assert usual_days([bare, self.partition(days(3))]) == days(3)


def test_each_day_of_a_catch_up_is_compared() -> None:
    run = days(3, start="2024-03-01") | {"2024-03-02": a_day(top_user=0.9)}
    drift = compare_days(run, days(28), list(run), CONTRACT)
    assert [(breach.day, breach.figure) for breach in drift.breaches] == [("2024-03-02", "top_user")]
    assert list(drift.usual)[-1] == "2024-03-01"  # the odd one is nothing to compare the third with
    assert compare_days(run, days(28), ["2024-03-03"], CONTRACT).breaches == []


def test_a_message_names_the_worst_and_counts_the_others() -> None:
    run = days(10, start="2024-03-01", rows=10, users=1) | {"2024-03-05": a_day(rows=1)}
    with pytest.raises(ContractBreach) as caught:
        stop_on_breach(compare_days(run, days(28), list(run), CONTRACT), CONTRACT)
    assert str(caught.value).startswith("drift: table events, day 2024-03-05: seen rows 1 where")
    assert "; and 13 more; nothing was accepted" in str(caught.value)


@pytest.mark.parametrize(
    ("seen", "figures"),
    [
        ({}, []),
        ({"items": 15_001}, ["items"]),
        ({"text_chars": 8.0}, ["text_chars"]),
        ({"no_category": 1.0}, ["no_category"]),
    ],
    ids=str,
)
def test_a_catalogue_is_compared_with_the_one_before(seen: dict[str, float], figures: list[str]) -> None:
    before = {"items": 5000, "text_chars": 40.0, "no_category": 0.1}
    found = compare_catalog("2024-03-01", before | {"items": 5100} | seen, before, CONTRACT)
    assert [finding.figure for finding in found if finding.used > 1] == figures
    assert compare_catalog("2024-03-01", before | seen, before | {"items": 999}, CONTRACT) == []


def test_the_report_names_what_is_nearest_to_its_limit() -> None:
    drift = compare_days({"2024-03-01": a_day(rows=2000)}, days(28), ["2024-03-01"], CONTRACT)
    assert str(drift) == (
        "drift:  1 days checked, 0 breaches; nearest to its limit: table events, day 2024-03-01: seen rows 2,000 where "
        "1,000 is the median of 28 days; allowed: 333 to 3,000 (contract.max_count_ratio 3)"
    )
    assert drift.of_day("2024-03-01")["events.rows"] == pytest.approx(np.log(2) / np.log(3))
