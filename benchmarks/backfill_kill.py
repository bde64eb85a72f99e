"""The job of a backfill that is killed once, with all that it started."""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.fault_day import wait_until

WHEN_DUE = ("train_encoder", "train_recommender")
VICTIMS = (
    *("check_inputs", "update_histories", "embed_catalog", "train_item_space", "fit_codebook", "encode_items"),
    *("evaluate", "export_interests", "build_index", *WHEN_DUE),
)
"""Jobs that write for long enough to be killed meanwhile, the last two on days that train only."""
_IDLE_SECONDS = 3600  # after which a job that writes nothing counts as hanging


@dataclass(slots=True)
class Strike:
    """``kill -9`` of a job with everything it started, once, on a day or, where that came too late, on a later one."""

    warehouse: Path
    days: list[str]
    job: str
    rng: random.Random
    memory: Path
    """File that keeps what was done for those who go on with the backfill later."""
    ds: str | None = None
    """Day on which it was killed."""
    processes: int = 0

    def __post_init__(self) -> None:
        if self.memory.exists():
            done = json.loads(self.memory.read_text())
            self.ds, self.job, self.processes = done["ds"], done["task"], done["processes"]

    def row(self) -> dict[str, Any]:
        """Row of the results file."""
        return {"name": "kill", "ds": self.ds, "task": self.job, "processes": self.processes}

    def look(self) -> None:
        """Kill the job at a random moment in the second after it has begun to write, if it runs on one of the days."""
        ds = None if self.ds else next((ds for ds in self.days if self._running(ds)), None)
        if ds is None:
            return
        before = self._paths()
        wait_until(lambda: not self._running(ds) or bool(self._paths() - before), _IDLE_SECONDS, pause=0.2)
        time.sleep(self.rng.uniform(0, 1))
        victims = self._running(ds)
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended with the one before it
                process.kill()
        if victims:
            self.ds, self.processes = ds, len(victims)
            self.memory.write_text(json.dumps(self.row()))

    def _paths(self) -> set[str]:
        return {f"{folder}/{name}" for folder, *names in os.walk(self.warehouse) for name in (*names[0], *names[1])}

    def _running(self, ds: str) -> list[psutil.Process]:
        """The job's processes, and all that they started."""
        found: dict[int, psutil.Process] = {}
        for process in psutil.process_iter():
            try:
                words = process.cmdline()
                named = self.job in words or f"jobs.{self.job}" in words
                if named and str(self.warehouse) in words and ds in words:
                    found |= {one.pid: one for one in (process, *process.children(recursive=True))}
            except psutil.Error:  # it ended meanwhile
                continue
        return list(found.values())


def victim(days: list[str], every: int, rng: random.Random) -> tuple[list[str], str]:
    """The job to be killed, and the days on which it may be: one in the middle that trains, if there is one."""
    middle = len(days) // 2
    trains = middle // every * every
    return days[trains or middle :], rng.choice([job for job in VICTIMS if trains or job not in WHEN_DUE])
