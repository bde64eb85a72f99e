"""RecTools' SASRec as a contender: trained and ranking in another process, with packages of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality_data import Log
from hymirec_model.histories import Histories, Ints
from jobs.platform.local import state_folder

SCRIPT = Path(__file__).with_name("rectools_sasrec.py")


def fit(
    log: Log, factors: int, positions: int, dropout: float, seconds: float, seed: int
) -> Callable[[Histories], Ints]:
    """Train it, let it rank the log's tasks, and return what looks its lists up (someone without a history has none).

    Raises
    ------
    SystemExit
        If its packages are not there, or it fails.
    """
    packages = state_folder() / "rectools"
    if not (packages / "rectools").is_dir():
        raise SystemExit(f"error: no {packages}; allowed: the packages that make bench-quality puts there")
    given = {"users": log.train.users, "items": log.train.items, "times": log.train.timestamps}
    for name, task in log.tasks.items():
        past = task.past
        given |= {f"{name}_users": past.users, f"{name}_items": past.items, f"{name}_times": past.timestamps}
        given |= {f"{name}_count": np.asarray(len(past))}
    settings: dict[str, Any] = {"seconds": seconds, "seed": seed, "mask_seen": log.mask_seen, "tasks": list(log.tasks)}
    settings |= {"factors": factors, "positions": positions, "dropout": dropout}
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
            lists = {name: found[name] for name in log.tasks}

    def rank(past: Histories) -> Ints:
        for name, task in log.tasks.items():
            if past is task.past:
                return np.asarray(lists[name])
        return np.full((len(past), next(iter(lists.values())).shape[1]), -1)

    return rank
