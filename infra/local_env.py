"""The environment of every local command: one place for AIRFLOW_HOME, AIRFLOW__*, MLFLOW_*, Spark and PATH.

Usage::

    python -m infra.local_env -- COMMAND ARGS…      run a command in this environment
    eval "$(python -m infra.local_env)"             take the environment into a shell

All state lives under ``var/`` (or the folder in HYMIREC_STATE). Settings that decide where state lies or
who can reach it are fixed here; all others give way to a value that is already in the environment.
Standard library only, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from jobs.platform.local import REPOSITORY, packaged_java, state_folder

LOOPBACK = "127.0.0.1"


class SettingError(Exception):
    """An environment variable has a value that cannot be used."""


def port(name: str, default: int, base: Mapping[str, str] | None = None) -> int:
    """Return the port in the environment variable ``name``."""
    base = os.environ if base is None else base
    text = base.get(name) or str(default)
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise SettingError(f"{name}: seen {text!r}; allowed: a port number from 1 to 65535")
    return int(text)


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return ``base`` (default: this process's environment) extended for local commands.

    Creates the state folders of Airflow and MLflow and the secret that signs Airflow's tokens if need be.
    """
    base = os.environ if base is None else base
    state = state_folder(base)
    airflow_port = port("AIRFLOW_PORT", 8080, base)
    home = state / "airflow"
    (state / "mlflow").mkdir(parents=True, exist_ok=True)  # SQLite makes the file, not the folder
    binaries = Path(sys.prefix) / "bin"
    fixed = {
        "HYMIREC_STATE": str(state),
        "VIRTUAL_ENV": sys.prefix,
        "PATH": _front(str(binaries), base.get("PATH", os.defpath)),
        "PYTHONPATH": _front(str(REPOSITORY), base.get("PYTHONPATH", "")),
        "AIRFLOW_HOME": str(home),
        # Its processes take turns at writing; on a busy machine one may wait for longer than SQLite's five seconds.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout=60",
        "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(airflow_port),
        # Tasks report to this address; it has to follow the port or every task fails after some seconds.
        "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{airflow_port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": _secret(home),
    }
    defaults = {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        # JSON, because the brackets of a local master are no host in a URI.
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[*]"}),
        # The built-in data ended years ago: a schedule would ask for yesterday's partition and always fail.
        "HYMIREC_SCHEDULE": "none",
        "HYMIREC_WAREHOUSE": str(state / "warehouse"),
        # infra/airflow_db.py makes these pools.
        "HYMIREC_SPARK_POOL": "hymirec_spark",
        "HYMIREC_TRAINING_POOL": "hymirec_training",
        # Jobs write to MLflow's database; links in messages lead to the server's pages.
        "HYMIREC_MLFLOW_URL": f"http://{LOOPBACK}:{port('MLFLOW_PORT', 5000, base)}",
        "SPARK_CONF_DIR": str(REPOSITORY / "infra" / "spark"),
        "SPARK_LOCAL_IP": LOOPBACK,
        "PYSPARK_PYTHON": str(binaries / "python"),
        "PYSPARK_DRIVER_PYTHON": str(binaries / "python"),
        # Jobs write to this database with and without the MLflow server, which reads the same one.
        "MLFLOW_TRACKING_URI": f"sqlite:///{state}/mlflow/mlflow.db",
        "HYMIREC_CACHE": str(state / "cache"),  # downloads from a remote warehouse
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "TQDM_MININTERVAL": "2",  # progress bars become log lines: one in two seconds is enough
    }
    given = {key: value for key, value in base.items() if value or key not in defaults}
    result = {**defaults, **given, **fixed}
    result.pop("PYTHONHOME", None)
    java = packaged_java()
    if java is not None:
        result["JAVA_HOME"] = str(java)
    return result


def _front(entry: str, path: str) -> str:
    """Put ``entry`` first in a search path, once."""
    rest = [part for part in path.split(os.pathsep) if part and part != entry]
    return os.pathsep.join([entry, *rest])


def _secret(home: Path) -> str:
    """Return the secret that signs Airflow's tokens; made once, readable by its owner only."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    path = home / "jwt_secret"
    if not path.exists():
        fresh = home / f"jwt_secret.{os.getpid()}"
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(64))
        with contextlib.suppress(FileExistsError):  # another process was first: its secret counts
            os.link(fresh, path)
        fresh.unlink()
    return path.read_text()


def main(arguments: list[str]) -> int:
    """Print the environment, or replace this process by a command that runs in it."""
    try:
        result = environment()
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not command:
        for key in sorted(result):
            if result[key] != os.environ.get(key):
                print(f"export {key}={shlex.quote(result[key])}")
        return 0
    try:
        os.execvpe(command[0], command, result)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
