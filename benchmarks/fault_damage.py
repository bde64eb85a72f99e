"""Faults that are found, not caused: damaged files, a clock that moved, and a scheduler that was killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.fault_day import Day, differences, seen, wait_until
from benchmarks.fault_kinds import TRACEBACK, Outcome, after
from benchmarks.local_airflow import LocalAirflow
from infra.airflow_db import DAG
from jobs.platform.errors import WarehouseError
from jobs.platform.manifest import ReleaseError
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

_DAMAGE = ("truncated", "a flipped bit", "missing")


def damage(path: Path, how: str, rng: random.Random) -> None:
    """Damage a file in one of the ways of ``_DAMAGE``, or overwrite its first quarter; links to it stay."""
    content = bytearray(path.read_bytes())
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: rng.randrange(len(content))])
    elif how == "a flipped bit":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    elif how == "overwritten":
        path.write_bytes(bytes(len(content) // 4) + content[len(content) // 4 :])


@contextlib.contextmanager
def damaged(path: Path, how: str, rng: random.Random) -> Iterator[None]:
    """Damage a file for a while."""
    content = path.read_bytes()
    damage(path, how, rng)
    yield
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def damaged_release(day: Day, rng: random.Random) -> Outcome:
    """Each file of the current release, the manifest among them, damaged in each way: a full check names it."""
    outcome = Outcome("damaged file of a release")
    release = Release.open(str(day.warehouse), full=True)
    disturbed = day.copy(day.warehouse.with_name("disturbed"))
    folder = disturbed.warehouse / "releases" / release.id
    for name in ["manifest.json", *sorted(release.manifest["files"])]:
        for how in _DAMAGE:
            with damaged(folder / name, how, rng):
                try:
                    Release.open(str(disturbed.warehouse), full=True)
                    said = "nothing"
                except ReleaseError as error:
                    said = str(error)
            named = name in said or (name == "manifest.json" and "manifest" in said)
            outcome.check(f"{name} {how}", [], (named, f"said {said}"))
    return outcome


def damaged_partition(day: Day, rng: random.Random) -> Outcome:
    """A file of each table's committed partition truncated or missing: whoever reads it gets its name."""
    outcome = Outcome("damaged file of a partition")
    disturbed = day.copy(day.warehouse.with_name("disturbed"))
    for pointer in sorted(disturbed.warehouse.glob("*/ds=*/_current.json")):
        table, about = pointer.parent.parent.name, json.loads(pointer.read_text())
        for how in ("truncated", "missing"):
            name = rng.choice(sorted(about["files"]))
            with damaged(pointer.parent / about["folder"] / name, how, rng):
                try:
                    Warehouse(str(disturbed.warehouse)).partition(table, day.ds)
                    said = "nothing"
                except WarehouseError as error:
                    said = str(error)
            outcome.check(f"{table}/{name} {how}", [], (name in said and "allowed" in said, f"said {said}"))
    return outcome


def damaged_input(day: Day, job: str, table: str, how: str, rng: random.Random) -> Outcome:
    """A job whose input is damaged: one line that names the file, exit code 2, and nothing written."""
    outcome = Outcome(f"{table} {how}, {job}")
    disturbed = day.copy(day.warehouse.with_name("disturbed"))
    files = sorted(path for path in (disturbed.warehouse / table).rglob("*.parquet"))
    victim = files[-1]
    damage(victim, how, rng)
    paths = disturbed.paths()
    code, output = disturbed.run(job)
    line = [line for line in output.splitlines() if line.startswith("error: ")]
    outcome.check(
        victim.name,
        [],
        (disturbed.paths() == paths, "something was written"),
        (code == 2, f"exit code {code}: {output.strip().splitlines()[-1:]}"),
        (bool(line) and victim.name in line[-1], f"said {line}"),
        (TRACEBACK not in output, "a traceback"),
    )
    return outcome


def clock(day: Day, job: str, days: int, library: Path) -> Outcome:
    """The wall clock is some days off while a job runs: it leaves the same bytes."""
    outcome = Outcome(f"clock moved, {job}")
    reference = after(day, job)
    disturbed = day.copy(day.warehouse.with_name("disturbed"))
    code, output = disturbed.run(job, LD_PRELOAD=str(library), CLOCK_SHIFT=str(days * 86_400))
    last = output.strip().splitlines()[-1:]
    outcome.check(
        f"{days} days", differences(seen(disturbed.warehouse), reference), (code == 0, f"exit code {code}: {last}")
    )
    return outcome


def clock_library(folder: Path) -> Path:
    """Compile what moves the clock of a process; needs a C compiler."""
    library = folder / "clock_shift.so"
    source = Path(__file__).with_name("clock_shift.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    moved = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_SHIFT": "864000"}
    command = [sys.executable, "-c", "import time; print(time.time())"]
    shown = float(subprocess.run(command, env=moved, capture_output=True, text=True, check=True).stdout)
    if abs(shown - time.time() - 864_000) > 60:
        raise RuntimeError("the clock of a process did not move")
    return library


def scheduler(imported: Day, finished: Day, rng: random.Random) -> Outcome:
    """``kill -9`` of Airflow's scheduler while a task runs, then `make up` again: the run ends with the same release.

    Parameters
    ----------
    imported, finished : Day
        Before check_inputs, and after publish.
    rng : random.Random
    """
    outcome = Outcome("scheduler killed and started again")
    disturbed = imported.copy(imported.warehouse.with_name("scheduled"))
    state = imported.state.with_name("airflow-state")
    airflow = LocalAirflow(state)
    shutil.copytree(imported.state / "models", state / "models", dirs_exist_ok=True)
    try:
        airflow.call("infra.services", "up")
        values = {"WAREHOUSE": str(disturbed.warehouse), "PROFILE": str(disturbed.profile), "DS": disturbed.ds}
        run_id = airflow.call("infra.refresh", "trigger", **values).split()[1]
        pointer = disturbed.warehouse / "accepted_events" / f"ds={disturbed.ds}" / "_current.json"
        wait_until(pointer.exists, 600)
        time.sleep(rng.uniform(3, 20))
        record = json.loads((state / "run" / "services.json").read_text())
        os.kill(record["services"]["scheduler"][0], signal.SIGKILL)
        airflow.call("infra.services", "up")
        wait_until(lambda: airflow.api.run(DAG, run_id)["state"] not in ("queued", "running"), 1500, pause=3)
        ended = str(airflow.api.run(DAG, run_id)["state"])
        differ = differences(seen(disturbed.warehouse), seen(finished.warehouse))
        outcome.check("scheduler", differ, (ended == "success", f"the run ended as {ended}"))
    finally:
        airflow.down()
    return outcome
