"""A job as a process of its own, with its time, its memory, and what Spark moved between its stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from jobs.platform.warehouse import Warehouse


def run_job(job: str, wh: Warehouse, ds: str, profile: Path, state: Path) -> dict[str, float]:
    """Run a job, tracked in a store of its own.

    Returns
    -------
    dict
        seconds; peak_mib, the largest sum of the resident memory of its processes; driver_mib, that of its Python
        process alone; and of a job with Spark shuffle_mib and spill_mib, what was written between stages and to disk
        for want of memory.

    Raises
    ------
    SystemExit
        If the job fails.
    """
    command = [sys.executable, "-m", f"jobs.{job}", "--warehouse", wh.uri, "--ds", ds, "--profile", str(profile)]
    with tempfile.TemporaryDirectory() as events:
        settings = {"enabled": "true", "compress": "false", "dir": f"file:{events}"}
        logged = " ".join(f"--conf spark.eventLog.{name}={value}" for name, value in settings.items())
        environment = os.environ | {
            "HYMIREC_STATE": str(state / "state"),
            "PYSPARK_SUBMIT_ARGS": f"{logged} pyspark-shell",
        }
        environment.pop("MLFLOW_TRACKING_URI", None)
        start, peak, driver = time.perf_counter(), 0, 0
        with subprocess.Popen(command, env=environment) as process:
            while process.poll() is None:
                every = _resident(psutil.Process(process.pid))
                peak, driver = max(peak, sum(every)), max(driver, *every[:1], 0)
                time.sleep(0.2)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"error: {job} ended with exit code {process.returncode}")
        moved = spark_figures(Path(events))
    return {"seconds": seconds, "peak_mib": peak / 2**20, "driver_mib": driver / 2**20, **moved}


def _resident(process: psutil.Process) -> list[int]:
    """Bytes of a process and of those that it started; the process itself first."""
    found = []
    try:
        for one in (process, *process.children(recursive=True)):
            found.append(one.memory_info().rss)
    except psutil.NoSuchProcess:  # it ended meanwhile: the next look counts again
        return []
    return found


def spark_figures(folder: Path) -> dict[str, float]:
    """What Spark's event logs in a folder say of all tasks; nothing where no Spark ran."""
    shuffle = spill = tasks = 0
    for path in folder.rglob("events*"):
        for line in path.read_text().splitlines() if path.is_file() else []:
            metrics = json.loads(line).get("Task Metrics")
            if metrics:
                tasks += 1
                shuffle += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
                spill += metrics["Disk Bytes Spilled"]
    return {"tasks": tasks, "shuffle_mib": shuffle / 2**20, "spill_mib": spill / 2**20} if tasks else {}
