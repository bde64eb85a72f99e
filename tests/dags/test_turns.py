"""Turns: never two runs at work, days in order, nobody waits for ever. tests/integration has a real backfill."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dags import turns
from jobs.platform import foreground_lock
from jobs.platform.warehouse import Warehouse


@dataclass
class Run:
    """A run, and the questions that its task ``resolve`` may ask, answered from all ``runs`` as Airflow does."""

    day: int | None
    runs: list[Run]
    state: str = "running"
    resolved: bool = False
    dag_id: str = "hymirec_refresh"
    task_id: str = "resolve"

    @property
    def run_id(self) -> str:
        return f"run of {self.day}"

    @property
    def logical_date(self) -> datetime.date | None:
        return None if self.day is None else datetime.date.fromordinal(self.day)

    def get_previous_dagrun(self, state: str) -> Run | None:
        if self.day is None:
            return None
        earlier = [run for run in self.runs if run.state == state and run.day is not None and run.day < self.day]
        return max(earlier, key=lambda run: run.day or 0, default=None)

    def get_dr_count(self, dag_id: str, states: list[str]) -> int:
        return sum(run.state in states for run in self.runs)

    def get_ti_count(self, dag_id: str, task_ids: list[str], states: list[str]) -> int:
        return sum(run.state == "running" and not run.resolved for run in self.runs)

    def get_template_context(self) -> dict[str, object]:
        return {"dag_run": self}


days = st.lists(st.integers(1, 9), unique=True, max_size=6)


@given(days=days, manual=st.booleans(), order=st.randoms(use_true_random=False))
def test_one_at_a_time_and_all_come_to_their_turn(days: list[int], manual: bool, order: object) -> None:
    runs: list[Run] = []
    runs += [Run(day, runs) for day in days]
    if manual:
        runs.append(Run(None, runs))
    done = []
    for _ in range(len(runs)):
        order.shuffle(runs)  # type: ignore[attr-defined]
        for run in runs:
            if run.state == "running" and not run.resolved:
                run.resolved = turns.ahead(run, "w") is None
        at_work = [run for run in runs if run.state == "running" and run.resolved]
        assert len(at_work) == 1
        at_work[0].state = "success"
        done.append(at_work[0].day)
    assert done == [*sorted(days), *([None] if manual else [])]


def test_an_earlier_day_waits_for_a_later_one_that_is_at_work() -> None:
    runs: list[Run] = []
    runs += [Run(3, runs), Run(9, runs, resolved=True)]
    assert turns.ahead(runs[0], "w") == "a run that is at work already"
    runs[1].state = "failed"
    assert turns.ahead(runs[0], "w") is None


def test_the_earlier_day_is_named() -> None:
    runs: list[Run] = []
    runs += [Run(3, runs), Run(4, runs)]
    assert turns.ahead(runs[1], "w") == "run of 3, the run of an earlier day"


def test_a_foreground_run_in_the_same_warehouse_comes_first(tmp_path: Path) -> None:
    runs: list[Run] = []
    runs.append(Run(3, runs))
    with foreground_lock.hold(Warehouse(str(tmp_path / "w")), "2017-12-03"):
        assert turns.ahead(runs[0], str(tmp_path / "w")) == "the foreground run of 2017-12-03 in this warehouse"
        assert turns.ahead(runs[0], str(tmp_path / "other")) is None
    assert turns.ahead(runs[0], str(tmp_path / "w")) is None


def test_a_foreground_run_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its database may hold the run of one that was killed."""
    monkeypatch.setenv("HYMIREC_FOREGROUND", "1")
    assert turns.ahead(SimpleNamespace(), "w") is None
