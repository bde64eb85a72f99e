"""Does a backfill of many days end the same when a task is killed on the way, and what does a day cost?

Usage::

    make bench-backfill                           30 days
    make bench-backfill ARGS="--days 3"
    make bench-backfill ARGS="--folder var/backfill --minutes 60"    in pieces: the same command goes on

`airflow backfill create` over days of The Complete Journey, by two Airflows side by side, each in a warehouse of its
own: all households and products, and the whole log before the first day, which that day takes as a first run. In one
of them a job is killed once with everything it started, and Airflow tries the task again by itself. At the end both
warehouses are compared. ``seconds`` of a day are those of its run, ``tasks`` those of each task's last try; what is
between them is the work of Airflow. A day beside the other backfill costs more than one alone. The picture beside the
results, NAME.png, is of the backfill that nothing disturbed.
"""

from __future__ import annotations

import datetime
import json
import math
import random
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.backfill_kill import Strike, victim
from benchmarks.backfill_plot import cost_a_day
from benchmarks.fault_day import Day, differences, seen, wait_until
from benchmarks.local_airflow import LocalAirflow
from benchmarks.report import FOLDER, Check, Results
from infra.airflow_db import DAG, migrate
from jobs.platform.profile import load_profile
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

PROFILE = Path(__file__).with_name("backfill.yaml")
LAST = datetime.date(2017, 12, 24)  # the log has nothing of the day after it
UNDISTURBED, KILLED = "undisturbed", "killed"
_IDLE_SECONDS = 3600  # after which a backfill that ends no day counts as hanging


@dataclass(slots=True)
class Backfill:
    """One of the two: its Airflow, and the warehouse in which it refreshes the days."""

    name: str
    warehouse: Path
    airflow: LocalAirflow
    ended: dict[str, str] = field(default_factory=dict)
    """State of each day's run that has ended."""

    def start(self, days: list[str]) -> None:
        """Start the services, and ask for the days, or go on with those that were asked for before."""
        asked = self.airflow.state / "asked.json"
        before = json.loads(asked.read_text()) if asked.exists() else days
        if before != days:
            raise typer.BadParameter(f"--folder has a backfill of {before[0]} to {before[-1]}: choose another one")
        if not asked.exists():
            # Before the scheduler writes to the same SQLite, which may refuse one of two writers.
            migrate(self.airflow.env, self.airflow.state / "airflow-db.log")
            self.airflow.airflow("dags", "reserialize")
            dates = ("--from-date", days[0], "--to-date", days[-1])
            # One at a time, so that none has to wait for its turn.
            self.airflow.airflow("backfill", "create", "--dag-id", DAG, *dates, "--max-active-runs", "1")
            asked.write_text(json.dumps(days))
        self.airflow.call("infra.services", "up")
        if not wait_until(lambda: self.airflow.api.pause_backfills(DAG, False), _IDLE_SECONDS, pause=1):
            raise RuntimeError(f"Airflow does not go on with its backfill; look at {self.airflow.state}/log")

    def rests(self) -> bool:
        """Have no further day begun; tell whether none is at work."""
        return self.airflow.api.pause_backfills(DAG, True) and not self.airflow.api.running(DAG)

    def news(self) -> list[dict[str, Any]]:
        """Rows of the days that have ended since the last call, oldest first."""
        runs = [run for run in self.airflow.api.runs(DAG, limit=100) if run["run_type"] == "backfill"]
        rows = []
        for run in reversed(runs):
            ds = run["logical_date"][:10]
            if run["state"] in ("success", "failed") and ds not in self.ended:
                self.ended[ds] = run["state"]
                tasks = self.airflow.api.tasks(DAG, run["dag_run_id"])
                rows.append({"name": self.name, "ds": ds} | self._facts(ds) | day_figures(run, tasks))
        return rows

    def _facts(self, ds: str) -> dict[str, Any]:
        wh = Warehouse(str(self.warehouse))
        accepted, trained = wh.find("accepted_events", ds), wh.find("recommender", ds)
        events = accepted.info["statistics"][ds]["rows"] if accepted else 0
        return {"events": events, "taken": accepted.rows if accepted else 0, "trained": trained is not None}


def day_figures(run: dict[str, Any], tasks: list[dict[str, Any]]) -> dict[str, Any]:
    """What Airflow says of a day: how it ended, how long it and its tasks took, and what it tried again.

    Parameters
    ----------
    run : dict
        A DAG run of Airflow's API that has ended.
    tasks : list of dict
        Its task instances.

    Returns
    -------
    dict
        state, seconds, begin and end of its jobs, tasks (seconds by task), again (tries of tasks with more than one).
    """
    jobs = [task for task in tasks if task["task_id"] != "resolve"]  # it waits for its turn, and each look is a try
    ran = [task for task in jobs if task["duration"]]
    return {
        "state": run["state"],
        "seconds": round((_moment(run["end_date"]) - _moment(run["start_date"])).total_seconds(), 1),
        "begin": min((task["start_date"] for task in ran), key=_moment, default=None),
        "end": max((task["end_date"] for task in ran), key=_moment, default=None),
        "tasks": {task["task_id"]: round(task["duration"], 1) for task in tasks if task["duration"]},
        "again": {task["task_id"]: task["try_number"] for task in jobs if task["try_number"] > 1},
    }


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def main(
    days: Annotated[int, typer.Option(min=3, max=90, help="Days of the backfill.")] = 30,
    first: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help=f"First of them; default: so that {LAST} is the last."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of which task is killed, and when.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Work here, and keep warehouses and logs.")] = None,
    minutes: Annotated[
        float | None, typer.Option(min=1, help="Begin no day after them; with the same folder the command goes on.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the results file and of the picture.")] = "backfill",
) -> None:
    """Backfill the days twice, kill a task of one, and write benchmarks/results/NAME.json and NAME.png."""
    start = first.date() if first else LAST - datetime.timedelta(days=days - 1)
    chosen = [str(start + datetime.timedelta(days=number)) for number in range(days)]
    if minutes and not folder:
        raise typer.BadParameter("--minutes needs a --folder, in which to go on later")
    end = time.monotonic() + 60 * minutes if minutes else math.inf
    results = Results(name)
    with tempfile.TemporaryDirectory(prefix="hymirec-backfill-") as scratch:
        place = (folder or Path(scratch)).absolute()
        imported = Day(place / "imported", place / "state")
        with_events = import_log(imported)
        missing = set(chosen) - set(with_events[:-1])  # the log breaks off on its last day
        if missing:
            raise typer.BadParameter(f"the log has no whole {', '.join(sorted(missing))}; choose other days")
        backfills = [prepared(place, imported, which) for which in (UNDISTURBED, KILLED)]
        rng = random.Random(f"{seed} backfill")
        until, job = victim(chosen, load_profile(str(PROFILE)).retrain_every_days, rng)
        strike = Strike(backfills[1].warehouse, until, job, rng, memory=place / "kill.json")
        try:
            for backfill in backfills:
                backfill.start(chosen)
            done = watch(results, backfills, days, strike, end)
        finally:
            for backfill in backfills:
                backfill.airflow.down()
        if not done:
            ended = ", ".join(f"{len(backfill.ended)} of {days} days {backfill.name}" for backfill in backfills)
            print(f"{ended}; the same command goes on")
            return
        results.add(strike.row())
        results.add(comparison(*(backfill.warehouse for backfill in backfills)))
    results.checks = checks(results.rows, chosen)
    results.write()
    undisturbed = [row for row in results.rows if row["name"] == UNDISTURBED]
    cost_a_day(undisturbed).savefig(FOLDER / f"{name}.png", dpi=110)
    results.show()
    if strike.ds is None:
        raise RuntimeError(f"{job} was not killed: it never wrote anything from {until[0]} on")


def import_log(day: Day) -> list[str]:
    """Import The Complete Journey into the day's warehouse; return the days of its log."""
    done = Warehouse(str(day.warehouse)).partitions("events") if day.warehouse.exists() else []
    if not done:
        airflow = LocalAirflow(day.state)
        airflow.call("jobs.import_events", "--source", "completejourney", "--warehouse", str(day.warehouse))
    return done or Warehouse(str(day.warehouse)).partitions("events")


def prepared(place: Path, imported: Day, name: str) -> Backfill:
    """A warehouse with the log alone, and an Airflow for it on one thread: the two backfills share the machine."""
    warehouse = place / name
    if not warehouse.exists():
        imported.copy(warehouse)
    environment = {
        "HYMIREC_SCHEDULE": "@daily",
        "HYMIREC_WAREHOUSE": str(warehouse),
        "HYMIREC_PROFILE": str(PROFILE),
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[1]"}),
    }
    return Backfill(name, warehouse, LocalAirflow(place / f"state-{name}", **environment))


def watch(results: Results, backfills: list[Backfill], days: int, strike: Strike, end: float) -> bool:
    """Add a row for each day that ends, and kill the job meanwhile; tell whether all days ended before the time did."""
    latest, resting = time.monotonic(), False
    while any(len(backfill.ended) < days for backfill in backfills) and not resting:
        if time.monotonic() > end:
            resting = sum(backfill.rests() for backfill in backfills) == len(backfills)  # which asks all of them
        for row in (row for backfill in backfills for row in backfill.news()):
            results.add(row)
            latest = time.monotonic()
        strike.look()
        if time.monotonic() - latest > _IDLE_SECONDS:
            raise RuntimeError(f"no day has ended for {_IDLE_SECONDS} s; look at the logs with --folder")
        time.sleep(2)
    return all(len(backfill.ended) == days for backfill in backfills)


def comparison(undisturbed: Path, killed: Path) -> dict[str, Any]:
    """The current releases of two warehouses, and all partitions.

    ``release`` is the id if both have the same, which vouches for all bytes; ``differ`` are partitions with other
    bytes, the release as one of them.
    """
    ids = {Release.open(str(warehouse), full=True).id for warehouse in (undisturbed, killed)}
    states = seen(undisturbed), seen(killed)
    return {
        "name": "comparison",
        "release": ids.pop() if len(ids) == 1 else None,
        "partitions": len(states[0]),
        "differ": differences(*states),
    }


def checks(rows: list[dict[str, Any]], days: list[str]) -> list[Check]:
    """Every day done, in order, one at a time; one task killed and tried again, no other; the same in both at the end.

    Parameters
    ----------
    rows : list of dict
        Of the days of both backfills, the kill and the comparison.
    days : list of str
        That were asked for.
    """
    made = []
    for name in (UNDISTURBED, KILLED):
        here = sorted((row for row in rows if row["name"] == name), key=lambda row: str(row["ds"]))
        ended = sum(row["state"] == "success" for row in here)
        made.append(Check(f"{name}: days that succeeded", ended, len(days), ended == len(days)))
        times = [(_moment(row["begin"]), _moment(row["end"])) for row in here if row["begin"]]
        early = sum(later[0] < before[1] for before, later in pairwise(times))
        made.append(Check(f"{name}: days begun before the end of the day before", early, 0, early == 0))
    kill, compared = (next(row for row in rows if row["name"] == name) for name in ("kill", "comparison"))
    struck = [row for row in rows if row["name"] == KILLED and row["ds"] == kill["ds"]]
    tries = sum(row["again"].get(kill["task"], 1) for row in struck)
    succeeded = all(row["state"] == "success" for row in struck)
    made.append(Check("tries of the task that was killed", tries, 2, tries == 2 and succeeded))
    again = [(row in struck and task == kill["task"]) for row in rows for task in row.get("again", ())]
    others = again.count(False)
    made.append(Check("other tasks that were tried again", others, 0, others == 0))
    differ, same = compared["differ"], (compared["release"] or "").startswith(days[-1])
    made.append(Check("the same release of the last day, byte for byte", int(same), 1, same))
    made.append(Check("partitions with other bytes", len(differ), 0, not differ))
    return made


if __name__ == "__main__":
    typer.run(main)
