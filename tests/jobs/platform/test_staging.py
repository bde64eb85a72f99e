"""An import that dies at any moment has not been, or is finished by the next one, or by who reads its tables."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from jobs.platform.errors import ImportUnfinished
from jobs.platform.staging import FOLDER, finish_imports, staged
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
        if renames % 2:
            finish_imports(Storage(str(root)))
        else:
            with pytest.raises(ValueError, match="nothing"), staged(Storage(str(root))):  # the next import, a vain one
                raise ValueError("nothing")
        assert read(root) == states("new" if complete else "old"), renames
        assert bool(complete) == (renames > 0)


def half_moved(root: Path) -> Path:
    """Leave an import as one that was killed between the two renames of its last day."""
    write(str(root), "old")
    folder = root / FOLDER / "killed"
    staged_in = folder / "events" / f"ds={DAYS[-1]}"
    staged_in.mkdir(parents=True)
    pq.write_table(pa.table({"x": ["new"]}), staged_in / "part-00000.parquet")
    day = root / "events" / f"ds={DAYS[-1]}"
    (folder / "_complete.json").write_text(json.dumps({f"events/{day.name}": ["part-00000.parquet"]}))
    day.rename(f"{staged_in}.old")
    return folder


def test_a_reader_waits_while_an_import_moves_folders(tmp_path: Path) -> None:
    half_moved(tmp_path)
    assert len(read(tmp_path)) == 3
    with (tmp_path / FOLDER / "lock").open("w") as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = pool.submit(finish_imports, Storage(str(tmp_path)))
        with pytest.raises(TimeoutError):
            done.result(0.2)
        assert len(read(tmp_path)) == 3
        fcntl.flock(held, fcntl.LOCK_UN)
        done.result(30)
    assert read(tmp_path) == states("old") | {f"events/ds={DAYS[-1]}": ["new"]}


def test_a_reader_is_told_what_it_cannot_finish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = half_moved(tmp_path / "bucket")
    store = Storage("s3a://bucket", pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()))
    with pytest.raises(
        ImportUnfinished, match=r"killed: seen an import .* not all in its place; .* files again"
    ) as told:
        finish_imports(store)
    assert told.value.exit_code == 75 and folder.is_dir()

    def refuse(*_: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Storage, "put", refuse)
    with pytest.raises(ImportUnfinished, match=r"killed: seen .* cannot be put in its place \(not yours\); allowed"):
        finish_imports(Storage(str(tmp_path / "bucket")))


def test_a_reader_leaves_imports_that_are_not_complete(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    finish_imports(storage)
    assert list(tmp_path.iterdir()) == []
    with staged(storage) as folder:
        (tmp_path / folder / "items").mkdir(parents=True)
        finish_imports(storage)  # at once: the lock is free while an import writes
        assert (tmp_path / folder / "items").is_dir()
        pq.write_table(pa.table({"x": ["new"]}), tmp_path / folder / "items" / "part-0.parquet")
    assert read(tmp_path) == {"items": ["new"]}


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
