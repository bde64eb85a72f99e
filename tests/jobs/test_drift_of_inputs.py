"""check_inputs stops at a day that is unlike the days before it, writes nothing then, and lets it pass on purpose."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from jobs.check_inputs import Report, check_inputs, find_inputs
from jobs.platform.errors import ContractBreach
from jobs.platform.input_drift import Drift
from jobs.platform.profile import ContractConfig
from jobs.platform.warehouse import Warehouse

DAYS = [f"2024-03-{day:02d}" for day in range(1, 9)]
*HISTORY, TODAY, TOMORROW = DAYS
CONTRACT = ContractConfig(drift_days=7, min_drift_days=5, min_drift_rows=30)
CATEGORIES = ("grocery", "grocery", "drugs", "meat")
USERS, ITEMS, ROWS = 20, 40, 100
Rows = list[dict[str, Any]]


@pytest.fixture
def rows(at: Callable[..., int]) -> Callable[[str], Rows]:
    """``rows(ds)``: a usual day, in which users, items and hours take turns."""

    def usual(ds: str) -> Rows:
        shift = DAYS.index(ds)  # no two days are the same
        return [
            {
                "user_id": f"u{(n + shift) % USERS}",
                "item_id": f"i{(3 * n + shift) % ITEMS}",
                "timestamp": at(ds, 1200 * (n % 60) + n),
            }
            for n in range(ROWS + shift)
        ]

    return usual


@pytest.fixture
def items() -> Rows:
    return [{"item_id": f"i{n}", "title": f"Thing {n}", "category": CATEGORIES[n % 4]} for n in range(ITEMS)]


@pytest.fixture
def check(spark: SparkSession, warehouse: Warehouse) -> Callable[..., Report]:
    def run(ds: str, contract: ContractConfig = CONTRACT, **more: Any) -> Report:
        return check_inputs(spark, warehouse, ds, contract, find_inputs(warehouse, ds), **more)

    return run


@pytest.fixture
def history(
    check: Callable[..., Report], rows: Callable[[str], Rows], items: Rows, put_events: Any, put_items: Any
) -> Report:
    """Six days, taken by one run."""
    put_items(items)
    for ds in HISTORY:
        put_events(ds, rows(ds))
    return check(HISTORY[-1])


def state(warehouse: Warehouse) -> dict[str, list[str]]:
    """All files of the tables that a breach must leave as they are."""
    tables = {name: Path(warehouse.uri) / name for name in ("accepted_events", "catalog")}
    files = {name: filter(Path.is_file, folder.rglob("*")) for name, folder in tables.items()}
    return {name: sorted(map(str, found)) for name, found in files.items()}


@pytest.mark.usefixtures("history")
def test_usual_days_pass_and_a_tenth_of_one_does_not(
    check: Any, rows: Any, put_events: Any, warehouse: Warehouse
) -> None:
    put_events(TODAY, rows(TODAY))
    report = check(TODAY)
    assert not report.drift.unchecked and report.drift.breaches == []
    assert list(report.drift.usual) == HISTORY
    assert "drift:  1 days checked, 0 breaches; nearest to its limit: table events" in str(report)
    info = warehouse.partition("accepted_events", TODAY).info
    assert info["statistics"][TODAY]["rows"] == report.accepted == ROWS + 6

    before = state(warehouse)
    put_events(TOMORROW, rows(TOMORROW)[: ROWS // 10])
    seen: list[Drift] = []
    with pytest.raises(ContractBreach, match=rf"drift: table events, day {TOMORROW}: seen rows 10 where 103 is the"):
        check(TOMORROW, on_drift=seen.append)
    assert state(warehouse) == before
    assert {"rows", "items"} <= {breach.figure for breach in seen[0].breaches}

    put_events(TOMORROW, rows(TOMORROW))  # imported again, whole
    assert check(TOMORROW).drift.breaches == []


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("change", "figure"),
    [
        (lambda n: {"item_id": f"i{4 * (n % 10)}"}, "category"),  # all of them grocery
        (lambda n: {"user_id": "robot"} if n % 2 else {}, "top_user"),
        (lambda n: {"item_id": f"new{n % ITEMS}"}, "new_items"),
    ],
    ids=["one category", "one user's flood", "other ids of the items"],
)
def test_a_day_of_another_make_stops_and_writes_nothing(
    check: Any, rows: Any, items: Rows, put_events: Any, put_items: Any, warehouse: Warehouse, change: Any, figure: str
) -> None:
    before = state(warehouse)
    put_items([*items, *(row | {"item_id": row["item_id"].replace("i", "new")} for row in items)])
    put_events(TODAY, [row | change(n) for n, row in enumerate(rows(TODAY))])
    with pytest.raises(ContractBreach, match=rf"drift: table events, day {TODAY}: seen {figure}"):
        check(TODAY)
    assert state(warehouse) == before
    assert warehouse.partitions("quarantine") == [HISTORY[-1], TODAY]  # of no bad rows: the rows are good by themselves


@pytest.mark.usefixtures("history")
def test_the_run_of_the_next_day_does_not_let_a_refused_day_in(
    check: Any, rows: Any, put_events: Any, warehouse: Warehouse
) -> None:
    put_events(TODAY, rows(TODAY)[:10])
    put_events(TOMORROW, rows(TOMORROW))
    with pytest.raises(ContractBreach, match=rf"day {TODAY}: seen rows 10"):
        check(TOMORROW)
    report = check(TOMORROW, ContractConfig(drift="accept", drift_days=7, min_drift_days=5, min_drift_rows=30))
    assert (report.days, report.accepted) == (2, ROWS + 7 + 10)
    assert f"let pass by contract.drift: table events, day {TODAY}: seen rows 10" in str(report)
    statistics = warehouse.partition("accepted_events", TOMORROW).info["statistics"]
    assert {day: facts.get("drift") for day, facts in statistics.items()} == {TODAY: "accept", TOMORROW: None}
    assert list(find_inputs(warehouse, TOMORROW).usual) == HISTORY  # what a rerun is compared with


def test_a_first_run_compares_its_own_day(
    check: Any, rows: Any, items: Rows, put_events: Any, put_items: Any, history: Report, warehouse: Warehouse
) -> None:
    assert not history.drift.unchecked  # five days before it, in the log itself
    assert list(warehouse.partition("accepted_events", HISTORY[-1]).info["statistics"]) == HISTORY
    put_events(HISTORY[1], rows(HISTORY[1])[:10])  # part of what is usual, not judged
    assert check(HISTORY[-1]).drift.breaches == []
    put_events(HISTORY[-1], rows(HISTORY[-1])[:10])
    with pytest.raises(ContractBreach, match=f"day {HISTORY[-1]}: seen rows 10"):
        check(HISTORY[-1])
    report = check(HISTORY[3])
    assert "drift:  not checked: 3 days to compare with; 5 are needed (contract.min_drift_days)" in str(report)
