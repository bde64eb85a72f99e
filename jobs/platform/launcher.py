"""Start a job in a process of its own, on every CUDA device that it can use.

Usage::

    python -m jobs.platform.launcher JOB --warehouse … --ds … --profile …

Jobs that can share their work across devices (``DISTRIBUTED``) run under torchrun when this machine has two
CUDA devices or more, one process a device. All others, and machines with one device or none, run
``python -m jobs.JOB`` in place of this process. Exits with the job's own exit code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, MutableMapping
from difflib import get_close_matches
from pathlib import Path

from jobs.platform import cli

JOBS_FOLDER = Path(__file__).resolve().parent.parent
DISTRIBUTED = frozenset({"train_recommender"})


def known_jobs() -> list[str]:
    """Return the names of all jobs: one file each in ``jobs/``."""
    return sorted(path.stem for path in JOBS_FOLDER.glob("*.py") if not path.stem.startswith("_"))


def cuda_devices(environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")) -> int:
    """Count the CUDA devices that a job would see, without importing torch.

    Parameters
    ----------
    environment : mapping
        CUDA_VISIBLE_DEVICES in it narrows the count, as in CUDA itself.
    devices : Path
        Folder of the device files; looked at where there is no ``nvidia-smi``.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.split(",")[0].strip() in ("", "-1"):
        return 0
    present = _devices_of_driver(environment)
    if present is None:
        present = sum(1 for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name))
    if visible is None:
        return present
    return min(present, len(visible.split(",")))


def _devices_of_driver(environment: Mapping[str, str]) -> int | None:
    """Devices that ``nvidia-smi -L`` lists; None where it does not exist or does not answer."""
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        return None
    try:
        listing = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return sum(1 for line in listing.splitlines() if line.startswith("GPU "))


def set_threads(processes: int, environment: MutableMapping[str, str] = os.environ) -> None:
    """Share this machine's cores among ``processes``, unless OMP_NUM_THREADS is set already."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))


def launch(job: str, arguments: list[str]) -> int:
    """Run ``job`` and return its exit code; does not return where the job takes the place of this process."""
    devices = cuda_devices() if job in DISTRIBUTED else 0
    set_threads(max(1, devices))
    if devices < 2:
        os.execv(sys.executable, [sys.executable, "-m", f"jobs.{job}", *arguments])
    print(f"launcher: {job} on {devices} CUDA devices", flush=True)
    return _torchrun(devices, job, arguments)


def _torchrun(processes: int, job: str, arguments: list[str]) -> int:
    """Run ``job`` in ``processes`` processes; return the exit code of the first that failed.

    torchrun itself would end with 1 whatever the job said, and 2 (bad input) must reach the scheduler.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        run.main(["--standalone", f"--nproc-per-node={processes}", "-m", f"jobs.{job}", *arguments])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return int(failure.exitcode)
    return 0


def main(arguments: list[str]) -> int:
    """Check the job's name and launch it; ends with the task that started it, killed ones included."""
    cli.end_with_parent()
    jobs = known_jobs()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"{__doc__}\nJobs: {', '.join(jobs)}")
        return 0 if arguments else 2
    job, *rest = arguments
    if job not in jobs:
        close = get_close_matches(job, jobs, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        print(f"error: job: seen {job!r}; allowed: {', '.join(jobs)}{hint}", file=sys.stderr)
        return 2
    return launch(job, rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
