"""The launcher: which jobs it knows, how it counts devices, what it hands on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from jobs.platform import launcher


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.platform.launcher", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def machine(folder: Path, *, devices: int, listed: int | None = None) -> tuple[dict[str, str], Path]:
    """Return the environment and the device folder of a machine with ``devices`` GPUs."""
    (folder / "dev").mkdir()
    for name in ["nvidiactl", "nvidia-uvm", *(f"nvidia{i}" for i in range(devices))]:
        (folder / "dev" / name).touch()
    if listed is not None:
        program = folder / "nvidia-smi"
        lines = "\\n".join(f"GPU {i}: NVIDIA X (UUID: GPU-{i})\\n  MIG 1g (UUID: MIG-{i})" for i in range(listed))
        program.write_text(f"#!/bin/sh\nprintf '{lines}\\n'\n")
        program.chmod(0o755)
    return {"PATH": str(folder)}, folder / "dev"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Wait until something holds; tell whether it did in time."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()


class TestCudaDevices:
    def test_none(self, tmp_path: Path) -> None:
        assert launcher.cuda_devices({"PATH": str(tmp_path)}, tmp_path) == 0

    @pytest.mark.parametrize("listed", [None, 4])
    @pytest.mark.parametrize(
        ("visible", "count"), [(None, 4), ("", 0), ("-1", 0), ("0", 1), ("0,2", 2), ("0,1,2,3,4,5", 4)]
    )
    def test_visible(self, tmp_path: Path, listed: int | None, visible: str | None, count: int) -> None:
        environment, devices = machine(tmp_path, devices=4, listed=listed)
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        assert launcher.cuda_devices(environment, devices) == count

    def test_a_broken_driver_falls_back_to_device_files(self, tmp_path: Path) -> None:
        environment, devices = machine(tmp_path, devices=2)
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        assert launcher.cuda_devices(environment, devices) == 2


class TestSetThreads:
    def test_cores_are_shared(self) -> None:
        environment: dict[str, str] = {}
        launcher.set_threads(1, environment)
        assert environment["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
        environment.clear()
        launcher.set_threads(10_000, environment)
        assert environment["OMP_NUM_THREADS"] == "1"

    def test_a_given_number_stays(self) -> None:
        environment = {"OMP_NUM_THREADS": "7"}
        launcher.set_threads(1, environment)
        assert environment["OMP_NUM_THREADS"] == "7"


class TestMain:
    def test_unknown_job(self) -> None:
        done = run("check_input", "--ds", "2017-12-03")
        assert done.returncode == 2
        assert done.stderr.startswith("error: job: seen 'check_input'; allowed: ")
        assert "did you mean check_inputs?" in done.stderr

    @pytest.mark.parametrize("name", ["platform", "__init__", "../x", "os"])
    def test_only_jobs_are_started(self, name: str) -> None:
        assert run(name).returncode == 2

    def test_help_names_the_jobs(self) -> None:
        done = run("--help")
        assert done.returncode == 0 and "check_inputs" in done.stdout

    def test_hands_on_arguments_and_exit_code(self) -> None:
        assert run("check_inputs", "--help").returncode == 0
        done = run("check_inputs", "--warehouse", "/nowhere", "--ds", "yesterday")
        assert done.returncode == 2 and "YYYY-MM-DD" in done.stderr

    def test_one_device_needs_no_torchrun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[list[str]] = []
        monkeypatch.setattr(launcher, "cuda_devices", lambda: 1)
        monkeypatch.setattr(launcher.os, "execv", lambda path, command: started.append(command))
        monkeypatch.setattr(launcher, "_torchrun", lambda *_: pytest.fail("one device"))
        with pytest.raises(pytest.fail.Exception):  # a real execv does not return
            launcher.launch("train_recommender", ["--ds", "2017-12-03"])
        assert started == [[sys.executable, "-m", "jobs.train_recommender", "--ds", "2017-12-03"]]

    def test_several_devices_share_a_job_that_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launcher, "cuda_devices", lambda: 4)
        monkeypatch.setattr(launcher, "set_threads", lambda processes: None)
        monkeypatch.setattr(launcher, "_torchrun", lambda processes, job, arguments: 10 * processes)
        assert launcher.launch("train_recommender", []) == 40

    def test_ends_with_a_task_that_is_killed(self, tmp_path: Path, repository: Path) -> None:
        """Under torchrun the launcher stays: task, launcher and two workers are all real processes here."""
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "__init__.py").touch()
        (tmp_path / "jobs" / "wait.py").write_text(
            "import os, pathlib, time\npathlib.Path(f'pid-{os.getpid()}').touch()\ntime.sleep(120)\n"
        )
        start = f"""
import os, pathlib, sys
sys.path.insert(0, {str(repository)!r})
from jobs.platform import launcher
os.environ["PYTHONPATH"] = {str(tmp_path)!r}
launcher.cuda_devices, launcher.known_jobs, launcher.DISTRIBUTED = lambda: 2, lambda: ["wait"], {{"wait"}}
pathlib.Path(f"pid-{{os.getpid()}}").touch()
launcher.main(["wait"])
"""
        task = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {start!r}], start_new_session=True)"
        process = subprocess.Popen([sys.executable, "-c", task], cwd=tmp_path)

        def pids() -> list[int]:
            return [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]

        try:
            assert within(60, lambda: len(pids()) == 3)
            process.kill()
            process.wait()
            assert within(30, lambda: not any(map(alive, pids())))
        finally:
            for pid in pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def test_torchrun_keeps_the_exit_code_of_bad_input(self, tmp_path: Path, repository: Path) -> None:
        """torchrun by itself would end with 1. Run for real, with two processes that refuse their input."""
        (tmp_path / "jobs").mkdir()
        (tmp_path / "jobs" / "__init__.py").touch()
        (tmp_path / "jobs" / "refuse.py").write_text("import sys\nprint('error: no')\nsys.exit(2)\n")
        script = f"""
import os, sys
sys.path.insert(0, {str(repository)!r})
from jobs.platform.launcher import _torchrun
os.environ["PYTHONPATH"] = {str(tmp_path)!r}
sys.exit(_torchrun(2, "refuse", []))
"""
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stdout.count("error: no") >= 1
        assert done.returncode == 2
