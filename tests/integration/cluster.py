"""A team's topology as processes of this machine: PostgreSQL under Airflow and MLflow, MLflow behind a password, Spark
standalone with two workers, Airflow with LocalExecutor. The parts, the secrets and the scripts of infra/deploy, with
everything on loopback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from infra.airflow_api import AirflowApi, get_json
from infra.airflow_db import DAG, POOLS
from infra.local_env import environment
from tests.integration.services import QUICK_JVM, free_port

HELP = "a team's set-up is run on PostgreSQL, which is not on this machine; on Debian: apt-get install postgresql"
_START_SECONDS, _RUN_SECONDS = 180, 1500
_ENTRYPOINT = "infra/deploy/entrypoint.sh"


def postgres_binaries() -> Path | None:
    """Folder with the programs of PostgreSQL's server, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or [
        Path(path) for path in [shutil.which("postgres")] if path
    ]
    return found[-1].resolve().parent if found else None


class Cluster:
    """The topology; `start` returns when all of it answers, `stop` when none of it is left.

    Attributes
    ----------
    env : dict
        Environment of a command that uses it.
    """

    def __init__(self, repository: Path, state: Path) -> None:
        self.repository, self.state = repository, state
        self.postgres_port, self.spark_port, self.mlflow_port, self.airflow_port = (free_port() for _ in range(4))
        self._processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._postgres = Path(tempfile.mkdtemp(prefix="hymirec-postgres-"))
        (state / "log").mkdir(parents=True)
        subprocess.run(
            [str(repository / "infra/deploy/secrets.sh"), str(state / "secrets")], check=True, capture_output=True
        )
        (state / "secrets" / "postgres_password").write_text("p@s/s %41#$x")  # as a cloud may give one
        base = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "MLFLOW", "HYMIREC"))}
        self.env = environment(
            {
                **base,
                "HYMIREC_STATE": str(state / "local"),
                "AIRFLOW_PORT": str(self.airflow_port),
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps(
                    {"conn_type": "spark", "host": "spark://127.0.0.1", "port": self.spark_port}
                ),
                "MLFLOW_TRACKING_URI": self.mlflow_url,
                "MLFLOW_TRACKING_USERNAME": "hymirec",
                "MLFLOW_PORT": str(self.mlflow_port),
                "MLFLOW_ARTIFACTS": str(state / "artifacts"),
                "POSTGRES_HOST": "127.0.0.1",
                "POSTGRES_PORT": str(self.postgres_port),
                "SECRETS_FOLDER": str(state / "secrets"),
                "JAVA_TOOL_OPTIONS": QUICK_JVM,
            }
        )

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    def start(self) -> None:
        """Start every part, one after the other where one needs another."""
        self._start_postgres()
        self._start_spark()
        self._start_mlflow()
        for command in (("db", "migrate"), ("pools", "import", str(POOLS))):
            done = self.call("airflow", *command)
            assert done.returncode == 0, done.stdout + done.stderr
        for name in ("api-server", "scheduler", "dag-processor"):
            self._run(name, ["airflow", name])
        self._wait("Airflow", lambda: self._airflow() is not None and self.api.knows(DAG))

    def stop(self) -> None:
        """End what was started, the last one first."""
        for name, process in reversed(self._processes):
            sign = signal.SIGINT if name == "postgres" else signal.SIGTERM  # of PostgreSQL: without waiting for clients
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self._postgres)

    @property
    def api(self) -> AirflowApi:
        passwords = Path(self.env["AIRFLOW_HOME"]) / "simple_auth_manager_passwords.json.generated"
        return AirflowApi(f"http://127.0.0.1:{self.airflow_port}", passwords)

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a container of the topology would."""
        return subprocess.run(
            [_ENTRYPOINT, *command], env=self.env, cwd=self.repository, capture_output=True, text=True, check=False
        )

    def refresh(self, **conf: str) -> str:
        """Trigger a refresh by Airflow's own command line, wait for its end, and return its state."""
        done = self.call("airflow", "dags", "trigger", DAG, "--conf", json.dumps(conf), "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        run_id = json.loads(done.stdout.strip().splitlines()[-1])[0]["dag_run_id"]
        end = time.monotonic() + _RUN_SECONDS
        pending = ("queued", "running", None)  # None: no answer in time, as on a machine with much other work
        while (state := self.api.run(DAG, run_id).get("state")) in pending and time.monotonic() < end:
            time.sleep(2)
        failed = [task for task in self.api.tasks(DAG, run_id) if task["state"] == "failed"]
        return ", ".join([str(state), *(f"{task['task_id']}: {self.api.reason(DAG, task)}" for task in failed)])

    def answer(self, path: str, host: str | None = None) -> int:
        """Status of a page of MLflow for somebody without a password, who may ask for it by another name."""
        try:
            with urlopen(Request(self.mlflow_url + path, headers={"Host": host} if host else {})) as found:
                return int(found.status)
        except HTTPError as error:
            return error.code

    def _start_postgres(self) -> None:
        binaries = postgres_binaries()
        assert binaries is not None, HELP
        # The server refuses to run as root; Debian's package brings a user for it, who cannot enter pytest's folders.
        user = "postgres" if os.geteuid() == 0 else None
        secret = self._postgres / "password"
        secret.write_text(self._password())
        if user:
            for path in (self._postgres, secret):
                shutil.chown(path, user)
        data = self._postgres / "data"
        set_up = ["--username", "hymirec", "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8"]
        command = [str(binaries / "initdb"), "--no-sync", "--pgdata", str(data), *set_up]
        done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        secret.unlink()
        options = {
            "port": self.postgres_port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
        }
        settings = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        self._run("postgres", [str(binaries / "postgres"), "-D", str(data), *settings], user=user)
        self._wait("PostgreSQL", lambda: self._psql("SELECT 1"))
        for name in ("airflow", "mlflow", "mlflow_auth"):
            assert self._psql(f"CREATE DATABASE {name}"), name

    def _psql(self, statement: str) -> bool:
        import psycopg2

        try:
            connection = psycopg2.connect(
                host="127.0.0.1", port=self.postgres_port, user="hymirec", password=self._password(), dbname="postgres"
            )
        except psycopg2.OperationalError:
            return False
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
        return True

    def _start_mlflow(self) -> None:
        self._run("mlflow", ["infra/deploy/mlflow.sh"])
        self._wait("MLflow", lambda: get_json(f"{self.mlflow_url}/version") is not None or self._refuses())

    def _password(self) -> str:
        return (self.state / "secrets" / "postgres_password").read_text()

    def _refuses(self) -> bool:
        with contextlib.suppress(OSError):
            return self.answer("/api/2.0/mlflow/experiments/search?max_results=1") == 401
        return False

    def _start_spark(self) -> None:
        page, master = free_port(), f"spark://127.0.0.1:{self.spark_port}"
        self._spark("master", "Master", page, "--port", str(self.spark_port))
        for name in ("worker-1", "worker-2"):
            work = ["--work-dir", str(self.state / name)]
            self._spark(name, "Worker", free_port(), "--cores", "1", "--memory", "2g", *work, master)

        def alive() -> bool:
            facts = get_json(f"http://127.0.0.1:{page}/json/")
            return facts is not None and facts["aliveworkers"] == 2

        self._wait("Spark", alive)

    def _spark(self, name: str, kind: str, page: int, *options: str) -> None:
        command = ["spark-class", f"org.apache.spark.deploy.{kind.lower()}.{kind}", "--host", "127.0.0.1"]
        self._run(name, [*command, "--webui-port", str(page), *options])

    def _airflow(self) -> object | None:
        health = get_json(f"http://127.0.0.1:{self.airflow_port}/api/v2/monitor/health")
        healthy = health is not None and health["scheduler"]["status"] == health["dag_processor"]["status"] == "healthy"
        return health if healthy else None

    def _run(self, name: str, command: list[str], user: str | None = None) -> None:
        with (self.state / "log" / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.repository / _ENTRYPOINT), *command] if user is None else command,
                cwd=self.repository if user is None else "/",
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=user,
            )
        self._processes.append((name, process))

    def _log(self, name: str) -> str:
        return (self.state / "log" / f"{name}.log").read_text(errors="replace")

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not ready():
            ended = [name for name, process in self._processes if process.poll() is not None]
            assert not ended, f"{ended[0]} ended:\n{self._log(ended[0])[-2000:]}"
            assert time.monotonic() < end, f"{what} did not answer:\n{self._log(self._processes[-1][0])[-2000:]}"
            time.sleep(0.5)
