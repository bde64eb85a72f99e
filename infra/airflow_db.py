"""Airflow's metadata database on this machine."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from jobs.platform.errors import JobError
from jobs.platform.local import REPOSITORY

DAG = "hymirec_refresh"


def migrate(env: dict[str, str], log_path: Path) -> None:
    """Bring Airflow's metadata database up to date, once a version of Airflow."""
    database = Path(env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///"))
    stamp = database.with_suffix(".version")
    wanted = version("apache-airflow")
    if database.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    print("preparing Airflow's database", flush=True)
    with log_path.open("w") as log:
        command = ["airflow", "db", "migrate"]
        done = subprocess.run(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log, check=False)
    if done.returncode:
        raise JobError(f"`airflow db migrate` failed; see {log_path}")
    stamp.write_text(wanted)
