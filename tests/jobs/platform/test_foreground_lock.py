"""The lock of a foreground run: one a warehouse, and it ends with its processes, however they end."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.platform.errors import JobError
from jobs.platform.foreground_lock import hold, holder
from jobs.platform.warehouse import Warehouse


def test_it_says_which_day_until_its_end(tmp_path: Path) -> None:
    warehouse = Warehouse(str(tmp_path))
    assert holder(warehouse) is None
    with hold(warehouse, "2017-12-03"):
        assert holder(Warehouse(f"file://{tmp_path}")) == "2017-12-03", "the same warehouse by another name"
        refused = pytest.raises(
            JobError, match="seen a foreground run of 2017-12-03 at work; allowed: one run at a time"
        )
        with refused, hold(warehouse, "2017-12-04"):
            raise AssertionError
    assert holder(warehouse) is None
    with hold(warehouse, "2017-12-04"):
        assert holder(warehouse) == "2017-12-04"


def test_a_killed_run_leaves_no_lock_but_its_child_keeps_it(tmp_path: Path, repository: Path) -> None:
    script = f"""
import os, subprocess
from jobs.platform.foreground_lock import hold
from jobs.platform.warehouse import Warehouse
with hold(Warehouse({str(tmp_path)!r}), "2017-12-03") as lock:
    child = subprocess.Popen(["cat"], stdin=0, pass_fds=[lock])
    print(child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline()
    assert process.wait() == -9
    assert holder(Warehouse(str(tmp_path))) == "2017-12-03"
    process.stdin.close()  # the child ends
    end = time.monotonic() + 30  # the kernel closes its files one after the other
    while holder(Warehouse(str(tmp_path))) is not None and time.monotonic() < end:
        time.sleep(0.05)
    assert holder(Warehouse(str(tmp_path))) is None
