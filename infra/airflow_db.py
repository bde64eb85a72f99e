"""Airflow's metadata database on this machine: its tables, and the pools of the DAG's tasks."""

from __future__ import annotations

import subprocess
from importlib.metadata import version
from pathlib import Path

from jobs.platform.errors import JobError
from jobs.platform.local import REPOSITORY

DAG = "hymirec_refresh"
POOLS = REPOSITORY / "infra" / "pools.json"


def migrate(env: dict[str, str], log_path: Path) -> None:
    """Bring Airflow's metadata database up to date, once a version of Airflow and of the file of pools."""
    database = Path(env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].removeprefix("sqlite:///").partition("?")[0])
    stamp = database.with_suffix(".version")
    wanted = f"{version('apache-airflow')}\n{POOLS.read_text()}"
    if database.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    print("preparing Airflow's database", flush=True)
    with log_path.open("w") as log:
        for command in (["airflow", "db", "migrate"], ["airflow", "pools", "import", str(POOLS)]):
            done = subprocess.run(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log, check=False)
            if done.returncode:
                raise JobError(f"`{' '.join(command)}` failed; see {log_path}")
    stamp.write_text(wanted)
