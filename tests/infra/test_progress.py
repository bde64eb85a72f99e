"""The log of `airflow dags test` as a person sees it."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from infra.progress import TaskLog

STAMP = "2026-11-24T00:34:16.197241Z"
DAG_LOGGER = "[airflow.sdk.definitions.dag] loc=dag.py:1501"
JOB = "[airflow.task.operators.dags.launch.JobOperator] loc=launch.py:116"
SPARK = "[airflow.task.hooks.airflow.providers.apache.spark.hooks.SparkSubmitHook] loc=spark_submit.py:965"


def starting(task: str) -> str:
    return f"{STAMP} [info     ] [DAG TEST] starting task_id={task} map_index=-1 {DAG_LOGGER}\n"


def ending(task: str) -> str:
    return f"{STAMP} [info     ] [DAG TEST] end task task_id={task} map_index=-1 {DAG_LOGGER}\n"


def said(text: str, logger: str = JOB) -> str:
    return f"{STAMP} [info     ] {text:<30} {logger}\n"


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(screen: io.StringIO) -> TaskLog:
    return TaskLog(Console(file=screen, highlight=False, soft_wrap=True))


def test_a_line_a_task_with_its_last_word(log: TaskLog, screen: io.StringIO) -> None:
    for line in (
        starting("check_inputs"),
        said("WARNING: Using incubator modules: jdk.incubator.vector", SPARK),
        said("check_inputs: 1,469,307 events accepted [0 in quarantine]", SPARK),
        ending("check_inputs"),
        starting("train_encoder"),
        said("train_encoder: 300 steps"),
        said("  loss 3.2"),
        said("train:  45%|████▌     | 120/300 [00:20<00:30,  5.9it/s]"),
        ending("train_encoder"),
    ):
        log.read(line)
    first, second = screen.getvalue().splitlines()
    assert first.split() == [
        "✓",
        "check_inputs",
        "0:00",
        "1,469,307",
        "events",
        "accepted",
        "[0",
        "in",
        "quarantine]",
    ]
    assert second.split() == ["✓", "train_encoder", "0:00", "300", "steps"]


@pytest.mark.parametrize("kind", ["airflow.sdk.exceptions.AirflowFailException", "airflow.exceptions.AirflowException"])
def test_failure_names_the_task_and_the_reason(log: TaskLog, screen: io.StringIO, kind: str) -> None:
    log.read(starting("publish"))
    log.read(f"{STAMP} [error    ] Task failed with exception     [task] loc=task_runner.py:1639\n")
    log.read("Traceback (most recent call last):\n")
    log.read(f"{kind}: publish: error: gate: seen 0.1; allowed: 1\n")
    log.read(ending("publish"))
    assert log.failure == "error: publish: gate: seen 0.1; allowed: 1"
    assert screen.getvalue().split() == ["✗", "publish", "0:00"]


def test_timeouts_are_named(log: TaskLog) -> None:
    log.read(starting("evaluate"))
    log.read("airflow.sdk.exceptions.AirflowTaskTimeout: Timeout, PID: 12\n")
    assert log.failure == "error: evaluate: Timeout, PID: 12"


def test_failure_before_the_first_task(log: TaskLog) -> None:
    log.read("Traceback (most recent call last):\n")
    log.read("airflow.sdk.exceptions.AirflowException: Dag 'x' could not be found\n")
    assert "could not be found" in log.failure


def test_a_silent_task_shows_life_in_a_file(screen: io.StringIO) -> None:
    with TaskLog(Console(file=screen, highlight=False, soft_wrap=True), heartbeat=0.05) as log:
        log.read(starting("train_encoder"))
        log.read(said("texts:  45%|████▌     | 120/300 [00:20<00:30,  5.9it/s]"))
        end = time.monotonic() + 10
        while "…" not in screen.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
        log.read(ending("train_encoder"))
        time.sleep(0.1)  # for a beat that was on its way
        shown = screen.getvalue()
        time.sleep(0.2)
        assert screen.getvalue() == shown, "nothing runs"
    first = shown.splitlines()[0]
    assert first.startswith("  … train_encoder") and "120/300" in first
