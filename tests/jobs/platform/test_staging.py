"""An import that dies at any moment has not been, or is finished by the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from jobs.platform.staging import FOLDER, staged
from jobs.platform.storage import Storage

DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")
# Each child dies by kill -9 at its n-th rename; every step of a switch is one.
DIES = """
import os, signal, sys
import pandas  # here, or pyarrow loads it in every child
from test_staging import write

def dies(folder, renames):
    write(folder, "old")
    left = renames

    def hook(event, arguments):
        nonlocal left
        if event == "os.rename":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    write(folder, "new")
    os._exit(0)

for renames in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        dies(f"{sys.argv[1]}/{renames}", renames)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
RENAMES = 1 + 2 * 4  # the mark of completeness, and for each folder the old one away and the new one in


def write(root: str, value: str, storage: Storage | None = None) -> None:
    """Import a value into items and three days."""
    with staged(storage or Storage(root)) as folder:
        for name in ("items", *(f"events/ds={ds}" for ds in DAYS)):
            path = Path(root) / folder / name
            path.mkdir(parents=True)
            pq.write_table(pa.table({"x": [value]}), path / f"part-00000-{value}-c000.parquet")


def read(root: Path) -> dict[str, list[str]]:
    """Values of each folder that is not hidden."""
    files = [path for path in root.rglob("*.parquet") if FOLDER not in path.parts]
    found: dict[str, list[str]] = {}
    for path in files:
        found.setdefault(str(path.parent.relative_to(root)), []).extend(pq.read_table(path)["x"].to_pylist())
    return found


def states(value: str) -> dict[str, list[str]]:
    return {name: [value] for name in ("items", *(f"events/ds={ds}" for ds in DAYS))}


def test_killed_at_every_step(tmp_path: Path, repository: Path) -> None:
    path = os.pathsep.join([str(repository), str(Path(__file__).parent)])
    command = [sys.executable, "-c", DIES, str(tmp_path), str(RENAMES + 1)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["-9"] * RENAMES + ["0"], done.stderr
    for renames in range(RENAMES + 1):
        root = tmp_path / str(renames)
        complete = renames == RENAMES or list((root / FOLDER).glob("*/_complete.json"))
        assert complete or read(root) == states("old")
        with pytest.raises(ValueError, match="nothing"), staged(Storage(str(root))):  # the next import, also a vain one
            raise ValueError("nothing")
        assert read(root) == states("new" if complete else "old"), renames
        assert bool(complete) == (renames > 0)


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    write(str(tmp_path), "old")
    with pytest.raises(ValueError, match="crash"), staged(Storage(str(tmp_path))) as folder:
        (tmp_path / folder / "items").mkdir(parents=True)
        raise ValueError("crash")
    assert read(tmp_path) == states("old")
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["lock"]


def test_what_was_never_complete_goes_after_a_day(tmp_path: Path) -> None:
    for name in ("fresh", "stale"):
        (tmp_path / FOLDER / name / "items").mkdir(parents=True)
    for path in (tmp_path / FOLDER / "stale" / "items", tmp_path / FOLDER / "stale"):
        os.utime(path, (time.time() - 90_000,) * 2)
    write(str(tmp_path), "new")
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["fresh", "lock"]
    assert read(tmp_path) == states("new")


def test_other_days_stay_and_a_store_without_renames_does_the_same(tmp_path: Path) -> None:
    store = Storage("s3a://bucket", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()))
    other = tmp_path / "bucket" / "events" / "ds=2023-12-31"
    other.mkdir(parents=True)
    pq.write_table(pa.table({"x": ["before"]}), other / "part-0.parquet")
    for value in ("old", "new"):
        write(str(tmp_path / "bucket"), value, store)
        assert read(tmp_path / "bucket") == states(value) | {"events/ds=2023-12-31": ["before"]}
