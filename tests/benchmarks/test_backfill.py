"""The figures of a day, which task is killed, and what counts as a backfill that ended the same."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backfill import KILLED, UNDISTURBED, checks, day_figures
from benchmarks.backfill_kill import VICTIMS, WHEN_DUE, Strike, victim
from benchmarks.backfill_plot import BETWEEN, GROUPS, cost_a_day, seconds_by_group
from dags.refresh_jobs import JOBS

DAYS = ["2017-12-01", "2017-12-02", "2017-12-03"]
KILL = {"name": "kill", "ds": DAYS[1], "task": "evaluate", "processes": 1}
SAME: dict[str, Any] = {"name": "comparison", "release": f"{DAYS[-1]}-01234567", "differ": []}


def task(name: str, start: str, seconds: float | None, tries: int = 1) -> dict[str, Any]:
    end = None if seconds is None else f"2026-01-01T10:{int(start):02d}:{int(seconds):02d}Z"
    begun = f"2026-01-01T10:{int(start):02d}:00.5Z"
    return {"task_id": name, "start_date": begun, "end_date": end, "duration": seconds, "try_number": tries}


def day(name: str, ds: str, **other: Any) -> dict[str, Any]:
    hour = 10 + DAYS.index(ds)
    row = {"name": name, "ds": ds, "state": "success", "again": {}}
    return row | {"begin": f"2026-01-01T{hour}:00:00Z", "end": f"2026-01-01T{hour}:50:00.5Z"} | other


def backfills(again: dict[str, int], **of_last: Any) -> list[dict[str, Any]]:
    rows = [day(UNDISTURBED, ds) for ds in DAYS]
    return [*rows, day(KILLED, DAYS[0]), day(KILLED, DAYS[1], again=again), day(KILLED, DAYS[2], **of_last)]


def failed(*rows: dict[str, Any]) -> list[str]:
    return [check.name for check in checks(list(rows), DAYS) if not check.holds]


def test_a_day_is_its_run_and_its_jobs() -> None:
    run = {"state": "success", "start_date": "2026-01-01T10:00:00Z", "end_date": "2026-01-01T10:05:30Z"}
    tasks = [task("resolve", "0", 3.0, tries=4), task("check_inputs", "1", 20.0), task("evaluate", "3", 30.0, tries=2)]
    figures = day_figures(run, [*tasks, task("champion.evaluate", "3", None, tries=0)])
    assert (figures["seconds"], figures["again"]) == (330.0, {"evaluate": 2})
    assert (figures["begin"], figures["end"]) == (tasks[1]["start_date"], tasks[2]["end_date"])
    groups = seconds_by_group(figures)
    assert (groups["input"], groups["evaluation"], groups["training"], groups[BETWEEN]) == (20.0, 30.0, 0.0, 280.0)
    assert day_figures(run, [])["begin"] is None


def test_groups_have_all_jobs_and_the_picture_all_days() -> None:
    assert sorted(job for jobs in GROUPS.values() for job in jobs) == sorted(JOBS)
    assert set(VICTIMS) < set(JOBS)
    facts = {"events": 9, "taken": 90, "seconds": 9.0, "tasks": {"champion.evaluate": 4.0}}
    figure = cost_a_day([{"ds": ds, "trained": ds == DAYS[0], **facts} for ds in DAYS])
    cost, size = figure.axes
    assert len(cost.patches) == len(DAYS) * (len(GROUPS) + 1) and len(size.patches) == len(DAYS)
    assert [text.get_text() for text in cost.texts] == ["trained"]


@pytest.mark.parametrize(("count", "expected"), [(30, 14), (16, 7), (9, 4), (3, 1)])
def test_the_kill_is_in_the_middle_on_a_day_that_trains_if_there_is_one(count: int, expected: int) -> None:
    days = [f"day {number}" for number in range(count)]
    chosen = [victim(days, 7, random.Random(seed)) for seed in range(200)]
    assert {until[0] for until, _ in chosen} == {days[expected]}
    assert {job for _, job in chosen} == set(VICTIMS) - set(() if expected % 7 == 0 else WHEN_DUE)


def test_checks_hold_only_where_all_went_well() -> None:
    good = backfills({"evaluate": 2})
    assert failed(*good, KILL, SAME) == []
    assert failed(*backfills({}), KILL, SAME) == ["tries of the task that was killed"]
    assert failed(*good, KILL | {"ds": None}, SAME) == [
        "tries of the task that was killed",
        "other tasks that were tried again",
    ]
    assert failed(*backfills({"evaluate": 2, "publish": 3}), KILL, SAME) == ["other tasks that were tried again"]
    assert failed(*good[:-1], KILL, SAME) == [f"{KILLED}: days that succeeded"]
    bad = backfills({"evaluate": 2}, begin=good[1]["begin"], state="failed")
    names = ("days that succeeded", "days begun before the end of the day before")
    assert failed(*bad, KILL, SAME) == [f"{KILLED}: {name}" for name in names]


def test_checks_tell_what_is_other_at_the_end() -> None:
    good = [*backfills({"evaluate": 2}), KILL]
    release, partitions = "the same release of the last day, byte for byte", "partitions with other bytes"
    assert failed(*good, SAME | {"release": f"{DAYS[0]}-01234567"}) == [release]
    assert failed(*good, SAME | {"release": None, "differ": ["release"]}) == [release, partitions]
    assert failed(*good, SAME | {"differ": ["index/ds=2017-12-01"]}) == [partitions]


def test_a_job_is_killed_with_what_it_started_once_it_writes(tmp_path: Path) -> None:
    script = f"""
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
time.sleep(1)
pathlib.Path("{tmp_path}", "x").touch()
child.wait()
"""
    words = ["jobs.evaluate", "--warehouse", str(tmp_path), "--ds", DAYS[1]]
    memory = tmp_path / "kill.json"
    strike = Strike(tmp_path, DAYS[1:], "evaluate", random.Random(0), memory)
    strike.look()
    assert strike.ds is None
    with subprocess.Popen([sys.executable, "-c", script, *words]) as process:
        while not strike.ds:
            strike.look()
        assert process.wait(10) == -9
    assert strike.row() == KILL | {"processes": 2}
    strike = Strike(tmp_path, DAYS[1:], "evaluate", random.Random(0), memory)  # of the command that goes on
    assert strike.row() == KILL | {"processes": 2}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(2)", *words]) as process:
        strike.look()
        assert process.wait() == 0, "it is killed once"
