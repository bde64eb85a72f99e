"""What the services are started with; tests/integration starts them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra import services
from infra.local_env import environment


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ("", "{state}/mlflow/mlflow.db"),
        ("sqlite:////data/runs/mine.db", "/data/runs/mine.db"),
        ("http://tracking.example:5000", "{state}/mlflow/mlflow.db"),
    ],
)
def test_mlflow_serves_the_store_that_the_jobs_write_to(tmp_path: Path, given: str, served: str) -> None:
    env = environment({"HYMIREC_STATE": str(tmp_path), "MLFLOW_TRACKING_URI": given})
    command = services._commands(env, 5000)["mlflow"]
    store = served.format(state=tmp_path)
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{store}"
    assert command[command.index("--artifacts-destination") + 1] == str(Path(store).parent / "artifacts")


@pytest.fixture
def started() -> Iterator[services.Running]:
    """One process in a session of its own, on record as a service."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        found = {"mlflow": (process.pid, services._started(process.pid) or 0.0)}
        yield services.Running(mark="none", airflow_port=1, mlflow_port=2, boot=services._boot(), services=found)
        process.kill()


def test_services_are_known_by_their_sessions_though_the_clock_is_set_anew(
    started: services.Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    ((pid, _),) = started.services.values()
    boot_time = psutil.boot_time()
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: boot_time + 3600)
    assert started.dead() == [] and [process.pid for process in started.processes()] == [pid]


def test_processes_of_another_boot_are_others(started: services.Running) -> None:
    """Their ids may be those of the record by chance: `down` must not end them."""
    assert started.processes() and not replace(started, boot="another").processes()
