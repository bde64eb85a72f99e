"""Airflow and MLflow as the tests start them: in a state folder and on ports of their own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from infra.airflow_api import AirflowApi
from infra.airflow_db import DAG

QUICK_JVM = "-XX:TieredStopAtLevel=1"
"""JAVA_TOOL_OPTIONS of clusters: their executors live for seconds too, as the drivers of infra/spark do."""


def bundle(name: str, folder: Path) -> dict[str, Any]:
    """A folder of DAGs, as Airflow's setting ``dag_bundle_config_list`` names it."""
    local_bundle = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return {"name": name, "classpath": local_bundle, "kwargs": {"path": str(folder)}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def local(state: Path) -> dict[str, str]:
    """Environment of a command with a state folder of its own: nothing of the test session's state shows through, nor
    of the make that may have started it."""
    ours = (
        "MAKEFLAGS",
        "MAKELEVEL",
        "HYMIREC_CACHE",
        "HYMIREC_MLFLOW_URL",
        "HYMIREC_WAREHOUSE",
        "MLFLOW_TRACKING_URI",
    )
    return {key: value for key, value in os.environ.items() if key not in ours} | {"HYMIREC_STATE": str(state)}


class Services:
    """The services of a state folder of their own, on ports of their own."""

    def __init__(self, repository: Path, state: Path, **environment: str) -> None:
        self.repository, self.state, self.environment = repository, state, environment
        self.airflow_port, self.mlflow_port = free_port(), free_port()

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    def make(self, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a target of the Makefile."""
        return self._run(["make", target], **environment)

    def _run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        env = {
            **local(self.state),
            "AIRFLOW_PORT": str(self.airflow_port),
            "MLFLOW_PORT": str(self.mlflow_port),
            **self.environment,
            **environment,
        }
        return subprocess.run(
            command,
            cwd=self.repository,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    def trigger(self, **values: str) -> str:
        """Trigger a refresh, wait for its end, and return its state."""
        done = self.make("trigger", **values)
        assert done.returncode == 0, done.stdout + done.stderr
        return self._ended(DAG, done.stdout.split()[1])

    def roll_back(self, warehouse: str, reason: str) -> str:
        """Trigger the DAG hymirec_rollback by Airflow's own command line, wait for its end, and return its state."""
        conf = json.dumps({"warehouse": warehouse, "reason": reason})
        done = self.airflow("dags", "trigger", "hymirec_rollback", "--conf", conf, "-o", "json")
        return self._ended("hymirec_rollback", json.loads(done.stdout.strip().splitlines()[-1])[0]["dag_run_id"])

    def airflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Airflow's own command line."""
        done = self._run([sys.executable, "-m", "infra.local_env", "--", "airflow", *arguments])
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    @property
    def api(self) -> AirflowApi:
        passwords = self.state / "airflow" / "simple_auth_manager_passwords.json.generated"
        return AirflowApi(f"http://127.0.0.1:{self.airflow_port}", passwords)

    def ended(self, dag: str, count: int, kind: str) -> list[dict[str, Any]]:
        """Wait until ``count`` runs of a kind have ended, and return them, oldest first."""
        end = time.monotonic() + 1200
        while time.monotonic() < end:
            runs = [run for run in self.api.runs(dag, limit=20) if run["run_type"] == kind]
            if len(runs) >= count and all(run["state"] in ("success", "failed") for run in runs):
                return runs[::-1]
            time.sleep(2)
        raise AssertionError(f"{dag}: {[(run['dag_run_id'], run['state']) for run in runs]}")

    def _ended(self, dag: str, run_id: str) -> str:
        end = time.monotonic() + 1200
        pending = ("queued", "running", None)  # None: no answer in time, as on a machine with much other work
        while (state := self.api.run(dag, run_id).get("state")) in pending and time.monotonic() < end:
            time.sleep(2)
        return str(state)

    def processes(self) -> list[psutil.Process]:
        """Return what still runs of them: found by the state folder's name, not by the code under test."""
        found = []
        for process in psutil.process_iter():
            try:
                text = " ".join([*process.cmdline(), *process.environ().values()])
                if str(self.state) in text and process.pid != os.getpid():
                    found.append(process)
            except psutil.Error:
                continue
        return found
