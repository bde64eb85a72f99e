"""Kinds of faults: each disturbs a job in one way, and says how often it was tried and how often survived.

A fault is survived when readers never see anything but the state before the job or the one after it, when the job
ends as it should (by itself, with a named error, or with the parent that was killed), and when a retry leaves the
bytes of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fault_day import Day, Process, differences, end_session, seen, wait_until
from infra.local_env import LOOPBACK

TRACEBACK = "Traceback (most recent call last)"
RETRY_LATER = 75


@dataclass(slots=True)
class Outcome:
    """Faults of one kind: how many were tried, how many survived, and what went wrong with the others."""

    kind: str
    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        return max(0, self.tried - len(self.wrong))

    def row(self) -> dict[str, Any]:
        """Row of the results file."""
        return {"name": self.kind, "tried": self.tried, "survived": self.survived, "wrong": self.wrong}

    def check(self, name: str, differ: list[str], *others: tuple[bool, str]) -> None:
        """Count a fault; it was not survived when something differs or one of ``others`` does not hold."""
        self.tried += 1
        faults = [text for holds, text in others if not holds]
        if differ:
            faults.append(f"other content: {', '.join(differ)}")
        if faults:
            self.wrong.append(f"{name}: {'; '.join(faults)}")


def kill_and_retry(day: Day, job: str, moments: int, rng: random.Random, seconds: float) -> Outcome:
    """``kill -9`` of a job at random moments, then a retry.

    Every second moment lies within the whole of an undisturbed run, the others within the second after the job has
    begun to write. Each attempt finds what the killed ones before it left.

    Parameters
    ----------
    day : Day
        As the job finds it; ``day`` itself is left as it is.
    job : str
    moments : int
    rng : random.Random
    seconds : float
        An undisturbed run takes.
    """
    outcome = Outcome(f"kill -9, {job}")
    before, reference = seen(day.warehouse), after(day, job)
    disturbed = day.copy(day.warehouse.with_name("disturbed"))
    for number in range(moments):
        process = disturbed.start(job)
        name = kill_at_random(disturbed, process, rng, seconds, writing=bool(number % 2))
        gone = process.all_gone()
        differ = differences(seen(disturbed.warehouse), before, reference)
        outcome.check(f"killed {name}", differ, (gone, "processes were left"))
    retry(outcome, disturbed, job, reference)
    return outcome


def kill_at_random(day: Day, process: Process, rng: random.Random, seconds: float, writing: bool) -> str:
    """Kill a job at a random moment; return which."""
    begun = time.monotonic()
    if writing:
        paths = day.paths()
        wait_until(lambda: not process.running or bool(day.paths() - paths), 3 * seconds, pause=0.01)
        time.sleep(rng.uniform(0, 1))
    else:
        wait_until(lambda: not process.running, rng.uniform(0, seconds), pause=0.01)
    process.kill()
    return f"after {time.monotonic() - begun:.2f} s"


@cache
def after(day: Day, job: str, **more: str) -> dict[str, Any]:
    """What an undisturbed run of the job leaves; run once, because ``day`` itself is never disturbed."""
    undisturbed = day.copy(day.warehouse.with_name("undisturbed"))
    undisturbed.must(job, **more)
    return seen(undisturbed.warehouse)


def retry(outcome: Outcome, day: Day, job: str, reference: dict[str, Any], **more: str) -> None:
    """Run the job again; if it does not leave the reference's bytes, no fault before it counts as survived."""
    code, output = day.run(job, **more)
    differ = differences(seen(day.warehouse), reference)
    if code or differ:
        last = output.strip().splitlines()[-1:] or ["nothing"]
        outcome.wrong += [f"retry: exit code {code} ({last[0]}), other content: {', '.join(differ)}"] * outcome.tried


def overlap(day: Day, job: str, times: int, rng: random.Random, seconds: float) -> Outcome:
    """Two runs of a job at once, the second a random while after the first; both have to end well."""
    outcome = Outcome(f"two overlapping runs, {job}")
    reference = after(day, job)
    for _ in range(times):
        disturbed = day.copy(day.warehouse.with_name("disturbed"))
        pause = rng.uniform(0, seconds / 2)
        first = disturbed.start(job)
        time.sleep(pause)
        second = disturbed.start(job)
        codes = (first.wait(), second.wait())
        said = "; ".join(p.output().strip().splitlines()[-1] for p in (first, second) if p.popen.returncode)
        differ = differences(seen(disturbed.warehouse), reference)
        outcome.check(f"{pause:.2f} s apart", differ, (codes == (0, 0), f"exit codes {codes}: {said}"))
    return outcome


def full_disk(day: Day, job: str, room: int = 4 << 10) -> Outcome:
    """The disk fills up while a job writes: one line that says so, nothing half, and a retry once there is room."""
    outcome = Outcome(f"full disk, {job}")
    before, reference = seen(day.warehouse), after(day, job)
    with small_disk(day.warehouse.with_name("disk"), _bytes(day.warehouse) + room) as (disk, enlarge):
        disturbed = Day(disk / "warehouse", day.state, day.ds, day.profile)
        shutil.copytree(day.warehouse, disturbed.warehouse)
        fill(disk, room)
        code, output = disturbed.run(job)
        last = (output.strip().splitlines() or [""])[-1]  # Spark has logged its workers' tracebacks before
        outcome.check(
            f"{room >> 10} KiB left",
            differences(seen(disturbed.warehouse), before),
            (code == RETRY_LATER, f"exit code {code}, not {RETRY_LATER}"),
            (
                last.startswith("error: disk: ") and "no space left" in last.lower(),
                f"no line that says it; last: {last}",
            ),
        )
        enlarge()
        retry(outcome, disturbed, job, reference)
    return outcome


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A tmpfs of some bytes at a folder, and a way to enlarge it. Needs the right to mount.

    Raises
    ------
    PermissionError
        If this user may not mount.
    """
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size}"]
    done = subprocess.run(["mount", *options, "tmpfs", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PermissionError(f"a small disk needs the right to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder, lambda: _remount(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
        folder.rmdir()


def fill(disk: Path, room: int) -> None:
    """Fill a disk up to some bytes."""
    state = os.statvfs(disk)
    left = state.f_bavail * state.f_frsize - room
    if left > 0:
        (disk / "filling").write_bytes(bytes(left))


def _remount(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=2g", str(folder)], check=True)


def _bytes(folder: Path) -> int:
    """Space a copy takes on a disk of whole pages, with a page for every folder."""
    return sum(-(-max(path.stat().st_size, 1) // 4096) * 4096 + 4096 for path in folder.rglob("*")) + (256 << 10)


def orphan(day: Day, job: str, seconds: float, rng: random.Random) -> Outcome:
    """``kill -9`` of the parent that started a job, as when a task of Airflow's dies: the job ends too."""
    outcome = Outcome(f"parent killed, {job}")
    before, reference = seen(day.warehouse), after(day, job)
    disturbed = day.copy(day.warehouse.with_name("disturbed"))
    script = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    parent = Process([sys.executable, "-c", script, *disturbed.command(job)], disturbed.env())
    # A parent that dies before its child runs any of our code is not ours to notice.
    wait_until(lambda: len(parent.members()) > 1, 10)
    time.sleep(rng.uniform(0.4, 0.8) * seconds)
    parent.kill()
    differ = differences(seen(disturbed.warehouse), before, reference)
    outcome.check("parent killed", differ, (parent.all_gone(20), "the job outlived its parent by 20 s"))
    retry(outcome, disturbed, job, reference)
    return outcome


def executor(day: Day, job: str, rng: random.Random) -> Outcome:
    """``kill -9`` of a Spark executor of a small cluster: Spark starts another one and the job ends well."""
    outcome = Outcome(f"Spark executor killed, {job}")
    reference = after(day, job)
    disturbed = day.copy(day.warehouse.with_name("disturbed"))
    cluster = "--master local-cluster[2,1,1024] --conf spark.ui.enabled=false pyspark-shell"
    process = disturbed.start(job, PYSPARK_SUBMIT_ARGS=cluster)

    def executors() -> list[psutil.Process]:
        found = []
        for member in process.members():
            with contextlib.suppress(psutil.Error):
                if "CoarseGrainedExecutorBackend" in " ".join(member.cmdline()):
                    found.append(member)
        return found

    started = wait_until(lambda: bool(executors()) or not process.running, 120)
    time.sleep(rng.uniform(0, 6))
    victims = executors()
    if victims:
        rng.choice(victims).kill()
    code = process.wait()
    differ = differences(seen(disturbed.warehouse), reference)
    outcome.check(
        "one of two",
        differ,
        (started and bool(victims), "there was no executor to kill"),
        (code == 0, f"exit code {code}: {process.output().strip().splitlines()[-1:]}"),
    )
    return outcome


def tracking_down(day: Day, job: str, moment: str) -> Outcome:
    """MLflow's server is down at a job's start, dies in its middle, or once it has written: an error, then a retry."""
    outcome = Outcome(f"MLflow down at the {moment}, {job}")
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    url = f"http://{LOOPBACK}:{port}"
    server = Server(day, port)
    try:
        server.start()
        before, reference = seen(day.warehouse), after(day, job, MLFLOW_TRACKING_URI=url)
        disturbed = day.copy(day.warehouse.with_name("disturbed"))
        if moment == "start":
            server.stop()
        runs = server.runs() if moment != "start" else 0
        process = disturbed.start(job, MLFLOW_TRACKING_URI=url)
        if moment == "middle":
            wait_until(lambda: server.runs() > runs or not process.running, 60, pause=0.02)
        elif moment == "end":
            wait_until(lambda: seen(disturbed.warehouse) != before or not process.running, 120, pause=0.02)
        server.stop()
        code, output = process.wait(), process.output()
        allowed = [before] if moment == "start" else [before, reference]
        ended = code == RETRY_LATER or (code == 0 and moment == "end")  # the end may have been too late
        outcome.check(
            moment,
            differences(seen(disturbed.warehouse), *allowed),
            (ended, f"exit code {code}, not {RETRY_LATER}: {output.strip().splitlines()[-1:]}"),
            (TRACEBACK not in output, "a traceback"),
        )
        server.start()
        retry(outcome, disturbed, job, reference, MLFLOW_TRACKING_URI=url)
    finally:
        server.stop()
    return outcome


class Server:
    """An MLflow server on loopback over the day's own database."""

    def __init__(self, day: Day, port: int) -> None:
        self.day, self.port = day, port
        self._process: Process | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = self.day.state / "server"
        folder.mkdir(exist_ok=True)
        command = [str(Path(sys.prefix) / "bin" / "mlflow"), "server", "--host", LOOPBACK, "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
        self._process = Process([*command, "--artifacts-destination", str(folder / "artifacts")], self.day.env())
        if not wait_until(self._answers, 120, pause=0.2):
            raise RuntimeError(f"the MLflow server did not start:\n{self._process.output()[-2000:]}")

    def stop(self) -> None:
        """``kill -9`` of the server and its workers."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.popen.pid, signal.SIGKILL)
            end_session(self._process)
            self._process = None

    def runs(self) -> int:
        """Number of runs in the server's database."""
        import sqlite3

        with contextlib.closing(sqlite3.connect(self.day.state / "server" / "mlflow.db", timeout=10)) as database:
            return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((LOOPBACK, self.port)) == 0
