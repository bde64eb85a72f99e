"""RecTools' SASRec as a contender: trained and ranking in another process, with packages of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.quality_data import Log, Task
from hymirec_model.histories import Histories, Ints
from jobs.platform.local import state_folder

SCRIPT = Path(__file__).with_name("rectools_sasrec.py")


def fit(
    log: Log, factors: int, positions: int, dropout: float, seconds: float, seed: int
) -> Callable[[Histories], Ints]:
    """Train it, let it rank both tasks, and return what looks its lists up (someone without a history has none).

    Raises
    ------
    SystemExit
        If its packages are not there, or it fails.
    """
    packages = state_folder() / "rectools"
    if not (packages / "rectools").is_dir():
        raise SystemExit(f"error: no {packages}; allowed: the packages that make bench-quality puts there")
    tasks: dict[str, Task] = {"window": log.window, "next": log.next_item}
    given = {"users": log.train.users, "items": log.train.items, "times": log.train.timestamps}
    for name, task in tasks.items():
        past = task.past
        given |= {f"{name}_users": past.users, f"{name}_items": past.items, f"{name}_times": past.timestamps}
        given |= {f"{name}_count": np.asarray(len(past))}
    settings = {"seconds": seconds, "seed": seed, "factors": factors, "positions": positions, "dropout": dropout}
    settings |= {"mask_seen": int(log.mask_seen)}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(source, **given)  # type: ignore[arg-type]
        command = [sys.executable, str(SCRIPT), str(source), str(target), json.dumps(settings)]
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(packages)}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"error: {SCRIPT.name} ended with {done.returncode}\n{done.stderr[-2000:]}")
        with np.load(target) as found:
            lists = {name: found[name] for name in tasks}

    def rank(past: Histories) -> Ints:
        for name, task in tasks.items():
            if past is task.past:
                return np.asarray(lists[name])
        return np.full((len(past), lists["next"].shape[1]), -1)

    return rank
