"""What every benchmark leaves: benchmarks/results/NAME.json with the machine and the command in it, and a table.

A file holds command, commit, date, machine, seconds, rows (one a contender) and checks (one a figure that was asked
for: name, value, bound, holds).
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Check:
    """A figure that was asked for."""

    name: str
    value: float
    bound: float
    holds: bool


@dataclass(slots=True)
class Results:
    """Rows and checks, written after each addition so that a stopped run keeps what it has."""

    name: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)
    commit: str = field(default_factory=lambda: code_commit())
    """Taken at the start: the code may change while a benchmark runs."""

    @classmethod
    def resumed(cls, name: str) -> Results:
        """The rows of an earlier run go on: theirs are kept, each with the commit it was measured at."""
        kept = FOLDER / f"{name}.json"
        return cls(name, json.loads(kept.read_text())["rows"] if kept.is_file() else [])

    def find(self, **key: Any) -> dict[str, Any] | None:
        """The row with these values."""
        return next((row for row in self.rows if all(row.get(k) == v for k, v in key.items())), None)

    def add(self, row: dict[str, Any]) -> None:
        """Keep and print a contender's figures."""
        self.rows.append(row | {"commit": self.commit})
        print("  ".join(f"{key} {_text(value)}" for key, value in row.items() if key != "runs"), flush=True)
        self.write()

    def write(self) -> Path:
        """Write the file and return its path."""
        FOLDER.mkdir(exist_ok=True)
        target = FOLDER / f"{self.name}.json"
        about = {
            "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
            "commit": self.commit,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": machine(),
            "seconds": round(time.perf_counter() - self.started),
            "rows": [],
            "checks": [asdict(check) for check in self.checks],
        }
        rows = ",\n  ".join(json.dumps(row) for row in self.rows)  # a line each: hundreds of them stay readable
        target.write_text(json.dumps(about, indent=1).replace('"rows": []', f'"rows": [\n  {rows}\n ]') + "\n")
        return target

    def show(self) -> None:
        """Print the checks, those that hold first."""
        table = Table("check", "value", "bound", "holds")
        for check in sorted(self.checks, key=lambda c: not c.holds):
            table.add_row(check.name, f"{check.value:.4g}", f"{check.bound:.4g}", "yes" if check.holds else "NO")
        Console().print(table)


def machine() -> dict[str, Any]:
    """Processor, cores, threads that the numeric libraries may use, memory, and the GPU where there is one."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def code_commit(folder: Path = FOLDER) -> str:
    """The commit of the work tree, with ``-dirty`` where it differs in more than ``folder``, the results."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("diff", "HEAD", "--name-only", "--", ":/", ":(exclude).")
    return git("rev-parse", "--short", "HEAD") + "-dirty" * bool(changed)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
