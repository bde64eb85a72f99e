"""Airflow and MLflow in a state folder and on ports of their own, for what only a scheduler can show."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.fault_day import own_environment
from infra.airflow_api import AirflowApi
from infra.local_env import LOOPBACK
from jobs.platform.local import REPOSITORY


class LocalAirflow:
    """The services of ``make up`` beside those of others; nothing runs before the command ``up``.

    Parameters
    ----------
    state : Path
        Folder of all their state.
    **environment : str
        Further variables of theirs and of all that they start.
    """

    def __init__(self, state: Path, **environment: str) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self.state = state
        port = _free_port()
        self.env = own_environment(state, AIRFLOW_PORT=port, MLFLOW_PORT=_free_port(), **environment)
        passwords = state / "airflow" / "simple_auth_manager_passwords.json.generated"
        self.api = AirflowApi(f"http://{LOOPBACK}:{port}", passwords)

    def call(self, module: str, *arguments: str, **more: str) -> str:
        """Run one of our commands, which has to succeed, and return what it printed."""
        return self._run([sys.executable, "-m", module, *arguments], **more)

    def airflow(self, *arguments: str) -> str:
        """Run Airflow's own command line, which has to succeed, and return what it printed."""
        return self._run(["airflow", *arguments])

    def down(self) -> None:
        """Stop the services, and whatever they started."""
        command = [sys.executable, "-m", "infra.services", "down"]
        subprocess.run(command, cwd=REPOSITORY, env=self.env, check=False, capture_output=True)

    def _run(self, command: list[str], **more: str) -> str:
        done = subprocess.run(command, cwd=REPOSITORY, env=self.env | more, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return str(probe.getsockname()[1])
