"""How many faults are tried, and how many survived, in every job of a day?

Usage::

    make bench-faults                              about an hour
    make bench-faults ARGS="--only race --only damage"

A tiny day runs once undisturbed, job by job. Then each job is disturbed as a process of its own: `kill -9` at random
moments, two runs at once, a full disk, MLflow down, a Spark executor or its own parent killed, another wall clock,
damaged files; and Airflow's scheduler is killed under a whole run. A row is a kind of fault. It counts as survived when
readers saw the state before the job or the one after it and nothing else, nothing was left running, and a retry left
the bytes of the undisturbed run. ``bad input`` counts generated rows, files and names instead.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import fault_damage, fault_kinds
from benchmarks.bad_input import fuzz
from benchmarks.fault_day import CHAIN, Day, stages
from benchmarks.fault_kinds import Outcome
from benchmarks.release_race import race
from benchmarks.report import Check, Results

SWITCHES, CASES = 1_000, 10_000
GROUPS = ("kill", "overlap", "disk", "mlflow", "parent", "executor", "clock", "damage", "scheduler", "race", "input")


def main(
    kills: Annotated[int, typer.Option(help="kill -9 of each job.")] = 4,
    seed: Annotated[int, typer.Option(help="Of the moments and of what is damaged.")] = 0,
    only: Annotated[list[str] | None, typer.Option(help=f"Groups: {', '.join(GROUPS)}; default all.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Work here and keep the undisturbed day.")] = None,
) -> None:
    """Disturb a day in every way and write benchmarks/results/faults.json."""
    chosen = only or list(GROUPS)
    unknown = set(chosen) - set(GROUPS)
    if unknown:
        raise typer.BadParameter(f"seen {', '.join(sorted(unknown))}; allowed: {', '.join(GROUPS)}")
    results = Results.resumed("faults") if only else Results("faults")
    with tempfile.TemporaryDirectory(prefix="hymirec-faults-") as scratch:
        place = folder or Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        for group in chosen:
            rng = random.Random(f"{seed} {group}")
            results.rows = [row for row in results.rows if row["group"] != group]
            if group == "race":
                results.add(_race(place, rng))
            elif group == "input":
                results.add({"group": group, "name": "bad input"} | fuzz(CASES, seed))
            else:
                days, seconds = undisturbed(place)
                for outcome in outcomes(group, days, seconds, kills, rng):
                    results.add({"group": group} | outcome.row())
            results.checks = checks(results)
            results.write()
    results.show()


def undisturbed(place: Path) -> tuple[list[Day], list[float]]:
    """The day before each job and after the last; run once a folder."""
    kept = [Day(place / f"stage-{number:02d}", place / "state") for number in range(len(CHAIN) + 1)]
    times = place / "seconds.txt"
    if times.exists():
        return kept, [float(text) for text in times.read_text().split()]
    days, seconds = stages(place)
    times.write_text(" ".join(f"{s:.1f}" for s in seconds))
    return days, seconds


def outcomes(group: str, days: list[Day], seconds: list[float], kills: int, rng: random.Random) -> Iterator[Outcome]:
    """All faults of a group, job by job."""
    before = dict(zip(CHAIN, days, strict=False))
    took = dict(zip(CHAIN, seconds, strict=True))
    if group == "kill":
        for job in CHAIN:
            yield fault_kinds.kill_and_retry(before[job], job, kills, rng, took[job])
    elif group == "overlap":
        for job in ("check_inputs", "update_histories", "fit_codebook", "build_index", "publish"):
            yield fault_kinds.overlap(before[job], job, 2, rng, took[job])
    elif group == "disk":
        for job in ("check_inputs", "embed_catalog", "train_encoder", "fit_codebook", "build_index", "publish"):
            yield fault_kinds.full_disk(before[job], job)
    elif group == "mlflow":
        for moment in ("start", "middle", "end"):
            for job in ("update_histories", "fit_codebook", "publish"):
                yield fault_kinds.tracking_down(before[job], job, moment)
    elif group == "parent":
        for job in ("check_inputs", "train_recommender", "publish"):
            yield fault_kinds.orphan(before[job], job, took[job], rng)
    elif group == "executor":
        for job in ("update_histories", "export_interests"):
            yield fault_kinds.executor(before[job], job, rng)
    elif group == "clock":
        library = fault_damage.clock_library(days[0].state)
        for job, shift in (("check_inputs", -3), ("train_encoder", 400), ("build_index", -3), ("publish", 400)):
            yield fault_damage.clock(before[job], job, shift, library)
    elif group == "damage":
        yield fault_damage.damaged_release(days[-1], rng)
        yield fault_damage.damaged_partition(days[-1], rng)
        yield fault_damage.damaged_input(before["check_inputs"], "check_inputs", "events", "truncated", rng)
        yield fault_damage.damaged_input(before["check_inputs"], "check_inputs", "events", "overwritten", rng)
        yield fault_damage.damaged_input(
            before["update_histories"], "update_histories", "accepted_events", "missing", rng
        )
    elif group == "scheduler":
        yield fault_damage.scheduler(before["check_inputs"], days[-1], rng)


def _race(place: Path, rng: random.Random) -> dict[str, object]:
    (place / "race").mkdir(exist_ok=True)
    seen = race(place / "race", SWITCHES, kills=20, rng=rng, readers=2)
    return {
        "group": "race",
        "name": "publish beside readers, killed now and then",
        "tried": seen.switches,
        "survived": seen.switches - len(seen.wrong),
        "kills": seen.kills,
        "reads": seen.reads,
        "releases_seen": seen.distinct,
        "wrong": seen.wrong,
    }


def checks(results: Results) -> list[Check]:
    """What was asked for: every fault survived, enough switches and enough cases of bad input."""
    found = []
    for row in results.rows:
        lost = row["tried"] - row["survived"]
        found.append(Check(f"{row['name']}: not survived", lost, 0, lost == 0))
    for group, name, least in (("race", "switches beside readers", SWITCHES), ("input", "cases of bad input", CASES)):
        tried = sum(row["tried"] for row in results.rows if row["group"] == group)
        found.append(Check(name, tried, least, tried >= least))
    return found


if __name__ == "__main__":
    typer.run(main)
