"""The jobs' command line: options are checked, errors are one line, drivers end with their parent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hymirec_model.errors import InputError
from jobs.platform import cli
from jobs.platform.errors import MissingPartition, TrackingError

REPOSITORY = Path(__file__).resolve().parents[3]
JOBS = ("import_events", "check_inputs", "update_histories")


def job(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    retrain: cli.RetrainOption = None,
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Do nothing."""
    if warehouse == "empty":
        raise MissingPartition("events", ds, None, "bring some")
    if warehouse == "untracked":
        raise TrackingError("MLflow is away")
    if warehouse == "odd":
        raise InputError("x is 1; allowed: 2")
    if warehouse == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "part-0.parquet")
    if warehouse == "damaged":
        raise RuntimeError("Job aborted\n[FAILED_READ_FILE.NO_HINT] Encountered error while reading file a.parquet.")
    if warehouse == "replaced":
        raise RuntimeError("Job aborted\n[FAILED_READ_FILE.FILE_NOT_EXIST] Encountered error while reading file a.")
    if warehouse == "broken":
        raise RuntimeError("unexpected")
    print(warehouse, ds, profile, retrain, cli.refresh_id_or_default(refresh_id, ds))


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.run(job, list(argv))
    return int(caught.value.code or 0)


def test_options_reach_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--warehouse", "w", "--ds", "2024-02-29", "--retrain", "never") == 0
    assert capsys.readouterr().out == "w 2024-02-29 demo never manual-2024-02-29\n"


def test_an_explained_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--warehouse", "empty", "--ds", "2024-02-29") == 2
    expected = "error: missing partition events/ds=2024-02-29: the table has no data yet; bring some\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("warehouse", "code"), [("empty", 2), ("odd", 2), ("untracked", 75), ("full", 75), ("damaged", 2), ("replaced", 75)]
)
def test_only_what_may_mend_itself_asks_for_a_retry(warehouse: str, code: int) -> None:
    assert run("--warehouse", warehouse, "--ds", "2024-02-29") == code


@pytest.mark.parametrize(
    ("warehouse", "message"),
    [
        (
            "full",
            "error: disk: seen [Errno 28] No space left on device: 'part-0.parquet'; allowed: room for what the job",
        ),
        ("damaged", "error: input: seen [FAILED_READ_FILE.NO_HINT] Encountered error while reading file a.parquet."),
    ],
)
def test_errors_of_other_libraries_with_a_known_cause(
    warehouse: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--warehouse", warehouse, "--ds", "2024-02-29")
    shown = capsys.readouterr().err
    assert shown.startswith(message) and shown.count("\n") == 1


def test_an_unexpected_error_is_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="unexpected"):
        cli.run(job, ["--warehouse", "broken", "--ds", "2024-02-29"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ds", "2024-2-29"], "seen '2024-2-29'; allowed: a day written YYYY-MM-DD"),
        (["--ds", "2023-02-29"], "seen '2023-02-29'; allowed: a day"),
        (["--ds", "2024-02-29", "--retrain", "maybe"], "seen 'maybe'; allowed: auto, always, never"),
        (["--ds", "2024-02-29", "--warehuose", "w"], "--warehuose"),
    ],
)
def test_usage_errors(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--warehouse", "w", *argv) == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown


def test_a_driver_ends_with_its_parent() -> None:
    child = (
        "import time\n"
        "from jobs.platform.cli import end_with_parent\n"
        "end_with_parent()\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for _ in range(100):
        if not _alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("start", [["-m", "jobs.check_inputs"], ["infra/spark_job.py", "check_inputs"]])
def test_help_of_a_job(start: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *start, "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "python -m jobs.check_inputs" in done.stdout
    for option in ("--warehouse", "--ds", "--profile", "--refresh-id"):
        assert option in done.stdout


@pytest.mark.parametrize("name", ["platform", "../x", "no_such_job", ""])
def test_spark_job_starts_only_jobs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "infra/spark_job.py", name],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"error: job: seen {name}; allowed: " in done.stderr
    assert all(job in done.stderr for job in JOBS)
