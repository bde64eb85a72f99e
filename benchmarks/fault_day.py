"""A tiny day whose jobs run as processes of their own, to be disturbed; and what its readers see afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from infra.local_env import environment
from jobs.platform.local import REPOSITORY

DS = "2024-03-03"
PROFILE = Path(__file__).with_name("faults.yaml")
CHAIN = (
    "import_events",
    "check_inputs",
    "update_histories",
    "train_encoder",
    "embed_catalog",
    "train_item_space",
    "fit_codebook",
    "encode_items",
    "train_recommender",
    "evaluate",
    "choose_model",
    "export_interests",
    "build_index",
    "publish",
)
_MARK = "HYMIREC_FAULT"
_END_SECONDS = 40  # in which everything that a killed process started has to be gone
_LIMIT = 600  # seconds after which a job counts as hanging


class Process:
    """A process with all that it starts: they carry a mark in their environment.

    Parameters
    ----------
    command : list of str
    env : dict of str to str
    """

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._mark = uuid.uuid4().hex
        self._output = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self.popen = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**env, _MARK: self._mark},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def wait(self) -> int:
        """Exit code; a process that hangs is killed and fails."""
        try:
            return self.popen.wait(_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """``kill -9`` of this one process, not of those that it started."""
        self.popen.kill()
        self.popen.wait()

    def output(self) -> str:
        """What it and its children have printed so far."""
        self._output.seek(0)
        return self._output.read()

    def members(self) -> list[psutil.Process]:
        """Living processes with its mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def all_gone(self, seconds: float = _END_SECONDS) -> bool:
        """Tell whether nothing of it is left after some seconds; what is left is killed then."""
        gone = wait_until(lambda: not self.members(), seconds)
        for process in self.members():
            with contextlib.suppress(psutil.Error):
                process.kill()
        return gone


def wait_until(happened: Callable[[], bool], seconds: float, pause: float = 0.05) -> bool:
    """Wait for something; tell whether it happened in time."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True


@dataclass(frozen=True, slots=True)
class Day:
    """A warehouse, the day to refresh in it, and where its jobs keep their state."""

    warehouse: Path
    state: Path
    ds: str = DS
    profile: Path = PROFILE

    def command(self, job: str) -> list[str]:
        """Command line of a job."""
        command = [sys.executable, "-m", f"jobs.{job}", "--warehouse", str(self.warehouse)]
        if job == "import_events":
            files = self.state / "log"
            return [*command, "--events", str(files / "events.parquet"), "--items", str(files / "items.parquet")]
        return [*command, "--ds", self.ds, "--profile", str(self.profile)]

    def env(self, **more: str) -> dict[str, str]:
        """Environment of a job, with a state folder of its own and one thread."""
        spark = "--master local[2] --conf spark.ui.enabled=false pyspark-shell"
        return own_environment(self.state) | {"PYSPARK_SUBMIT_ARGS": spark} | more

    def start(self, job: str, **more: str) -> Process:
        """Start a job; ``more`` are variables of its environment."""
        return Process(self.command(job), self.env(**more))

    def run(self, job: str, **more: str) -> tuple[int, str]:
        """Run a job to its end; return its exit code and output."""
        process = self.start(job, **more)
        return process.wait(), process.output()

    def must(self, job: str, **more: str) -> float:
        """Run a job that has to succeed; return its seconds."""
        start = time.monotonic()
        code, output = self.run(job, **more)
        if code:
            raise RuntimeError(f"{job} ended with exit code {code}:\n{output[-4000:]}")
        return time.monotonic() - start

    def copy(self, warehouse: Path) -> Day:
        """The same day in another warehouse, whose files are links: nothing changes a file in place."""
        shutil.rmtree(warehouse, ignore_errors=True)
        if self.warehouse.exists():
            shutil.copytree(self.warehouse, warehouse, copy_function=os.link)
        return Day(warehouse, self.state, self.ds, self.profile)

    def paths(self) -> set[str]:
        """All files and folders of the warehouse."""
        return {str(path) for path in self.warehouse.rglob("*")}


def own_environment(state: Path, **more: str) -> dict[str, str]:
    """Environment of commands with a state folder of their own and one thread; nothing of ours shows through."""
    ours = ("MLFLOW", "AIRFLOW", "HYMIREC", "PYSPARK_SUBMIT_ARGS")
    base = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return environment(base | {"HYMIREC_STATE": str(state), "OMP_NUM_THREADS": "1"} | more)


def write_log(folder: Path, users: int = 40, items: int = 150, days: int = 30, seed: int = 0) -> None:
    """Write events.parquet and items.parquet of people who come back to their favourites, up to the end of DS."""
    rng = np.random.default_rng(seed)
    end = int(datetime.fromisoformat(DS).replace(tzinfo=UTC).timestamp()) + 86_400
    rows = []
    for user in range(users):
        favourites = rng.integers(0, items, 8)
        for _ in range(int(rng.integers(20, 60))):
            item = favourites[rng.integers(8)] if rng.random() < 0.7 else rng.integers(items)
            rows.append((f"user-{user:03d}", f"item-{item:03d}", int(end - 1 - rng.integers(0, days * 86_400))))
    folder.mkdir(parents=True, exist_ok=True)
    columns = dict(zip(("user_id", "item_id", "timestamp"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "events.parquet")
    kinds = ("bread", "milk", "cheese", "tea", "soap", "rice", "fish", "pears", "paper", "beans")
    titles = [f"{kinds[item % 10]} number {item}" for item in range(items)]
    ids = [f"item-{item:03d}" for item in range(items)]
    pq.write_table(pa.table({"item_id": ids, "title": titles}), folder / "items.parquet")


def seen(warehouse: Path) -> dict[str, Any]:
    """What readers of a warehouse see, by partition, as digests and facts that two equal runs share.

    Input tables by their rows, because Spark names their files at random. Of our tables the committed attempt and the
    current release, byte for byte.
    """
    found: dict[str, Any] = {}
    for path in sorted(warehouse.glob("events/ds=*")) + sorted(warehouse.glob("items")):
        files = sorted(path.glob("*.parquet"))
        if files:
            rows = [str(row) for file in files for row in pq.read_table(file, partitioning=None).to_pylist()]
            found[str(path.relative_to(warehouse))] = hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
    for pointer in sorted(warehouse.glob("*/ds=*/_current.json")):
        about = json.loads(pointer.read_text())
        digests = {name: _sha256(pointer.parent / about["folder"] / name) for name in about["files"]}
        found[str(pointer.parent.relative_to(warehouse))] = (digests, about["rows"], about["info"])
    current = warehouse / "releases" / "CURRENT"
    if current.is_file():
        release = current.parent / current.read_text().strip()
        files = sorted(path for path in release.rglob("*") if path.is_file())
        found["release"] = {str(path.relative_to(release)): _sha256(path) for path in files}
    return found


def differences(now: dict[str, Any], *allowed: dict[str, Any]) -> list[str]:
    """Partitions that are as in none of ``allowed``."""
    names = now.keys() | {name for state in allowed for name in state}
    return sorted(name for name in names if not any(now.get(name) == state.get(name) for state in allowed))


def stages(folder: Path) -> tuple[list[Day], list[float]]:
    """Run the whole chain undisturbed; return the warehouse before each job and after the last, and their seconds."""
    state = folder / "state"
    write_log(state / "log")
    days, seconds = [Day(folder / "stage-00", state)], []
    for number, job in enumerate(CHAIN, 1):
        days.append(days[-1].copy(folder / f"stage-{number:02d}"))
        seconds.append(days[-1].must(job))
        print(f"undisturbed {job}: {seconds[-1]:.0f} s", flush=True)
    return days, seconds


def end_session(process: Process) -> None:
    """End a service that was started for a fault."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.popen.pid, signal.SIGTERM)
    process.all_gone(10)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
