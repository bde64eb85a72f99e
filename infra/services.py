"""Start, watch and stop Airflow and MLflow on this machine: ``make up``, ``make status``, ``make down``.

Four services, each in a session of its own: the MLflow server, and Airflow's api-server, scheduler and
dag-processor. Every process that they start inherits a mark in its environment, by which ``down`` finds it
even when its parents are gone. Nothing listens outside the loopback interface.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.airflow_api import AirflowApi, get_json
from infra.airflow_db import DAG, migrate
from infra.local_env import LOOPBACK, SettingError, environment, port
from jobs.platform.errors import JobError
from jobs.platform.local import REPOSITORY, state_folder

MARK = "HYMIREC_SERVICES"
_START_SECONDS = 180
_STOP_SECONDS = 30


@dataclass(frozen=True, kw_only=True)
class Running:
    """What ``up`` started: written to var/run/services.json."""

    mark: str
    airflow_port: int
    mlflow_port: int
    boot: str
    """Id of the boot of the machine: after another one, the ids of processes and sessions are others'."""
    services: dict[str, tuple[int, float]]
    """Of each service the process id, which is the id of its session too, and when it started: seconds since boot,
    which a clock that is set anew does not change."""

    @property
    def airflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.airflow_port}"

    @property
    def mlflow_url(self) -> str:
        return f"http://{LOOPBACK}:{self.mlflow_port}"

    def processes(self) -> list[psutil.Process]:
        """Return every living process that the services started, and the services themselves."""
        if self.boot != _boot():
            return []
        sessions = {pid for pid, started in self.services.values() if _started(pid) in (None, started)}
        found = []
        for process in psutil.process_iter():
            try:
                # Airflow's services write their title over their environment, but stay in their sessions; a
                # task's job has a session of its own, but an environment with the mark in it.
                ours = os.getsid(process.pid) in sessions or process.environ().get(MARK) == self.mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue  # it ended meanwhile, or belongs to someone else
        return found

    def dead(self) -> list[str]:
        """Return the names of services that have ended."""
        return [name for name, (pid, started) in self.services.items() if _started(pid) != started]


def _started(pid: int) -> float | None:
    """Return when the process with this id started, in seconds since boot; None if there is none."""
    try:
        process = psutil.Process(pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        return round(process.create_time() - psutil.boot_time(), 2) if alive else None
    except psutil.Error:
        return None


def _boot() -> str:
    """Return what tells this boot of the machine from others, empty where the system does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def running() -> Running | None:
    """Return the services that run from this state folder, None if there are none."""
    try:
        found = Running(**json.loads(_record().read_text()))
    except FileNotFoundError:
        return None
    return found if found.processes() else None


def up() -> int:
    """Start the services that are not running, and wait until all answer."""
    env = environment()
    found = running()
    if found is not None and not found.dead():
        print("Airflow and MLflow are running already; for other settings, `make down` first")
        _tell(found)
        return 0
    if found is not None:
        print(f"starting anew: {', '.join(found.dead())} ended (log: {_short(_log(found.dead()[0]))})")
        down()
    airflow_port, mlflow_port = port("AIRFLOW_PORT", 8080), port("MLFLOW_PORT", 5000)
    _check_free("AIRFLOW_PORT", airflow_port)
    _check_free("MLFLOW_PORT", mlflow_port)
    _record().parent.mkdir(parents=True, exist_ok=True)
    logs = _log("airflow-db").parent
    logs.mkdir(parents=True, exist_ok=True)
    logs.chmod(0o700)  # Airflow's api-server prints the password that it makes
    migrate(env, _log("airflow-db"))
    mark = secrets.token_hex(8)
    services: dict[str, tuple[int, float]] = {}
    for name, command in _commands(env, mlflow_port).items():
        with _log(name).open("a") as log:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**env, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        services[name] = (process.pid, _started(process.pid) or 0.0)
        started = Running(
            mark=mark, airflow_port=airflow_port, mlflow_port=mlflow_port, boot=_boot(), services=services
        )
        _write_record(started)
    try:
        _wait_until_ready(started)
    except JobError:
        down()
        raise
    _tell(started)
    return 0


def down() -> int:
    """Stop the services and everything they started; returns when no process is left."""
    found = running()
    if found is None:
        print("Airflow and MLflow are not running")
        _record().unlink(missing_ok=True)
        return 0
    for name in ("scheduler", "dag-processor", "api-server", "mlflow"):
        if name in found.services and name not in found.dead():
            with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.killpg(found.services[name][0], signal.SIGTERM)
    _wait_for(lambda: not found.processes(), _STOP_SECONDS, "stopping")
    for sign in (signal.SIGTERM, signal.SIGKILL):  # what left the services' sessions, such as a job of a task
        left = found.processes()
        for process in left:
            try:
                process.send_signal(sign)
            except psutil.NoSuchProcess:
                continue
        _wait_for(lambda: not found.processes(), 5, "stopping")
    left = found.processes()
    if left:
        raise JobError(f"these processes did not end: {', '.join(str(process.pid) for process in left)}")
    _record().unlink(missing_ok=True)
    print("Airflow and MLflow are stopped")
    return 0


def status() -> int:
    """Print what is running and how the latest refreshes went."""
    found = running()
    if found is None:
        print("Airflow and MLflow are not running; start them with `make up`")
        return 1
    dead = found.dead()
    for name, (pid, _) in found.services.items():
        print(f"  {name:<14} " + (f"ended, log: {_short(_log(name))}" if name in dead else f"running, pid {pid}"))
    _tell(found)
    airflow, lines = api(found), []
    for run in airflow.runs(DAG, limit=5):
        lines.append(f"\n  {run['state']:<9} {run['dag_run_id']}")
        for task in airflow.tasks(DAG, run["dag_run_id"]):
            seconds = f"{task['duration']:.0f} s" if task["duration"] else ""
            reason = airflow.reason(DAG, task) if task["state"] == "failed" else ""
            lines.append(f"    {task['state'] or 'waiting':<16} {task['task_id']:<25} {seconds:>6}  {reason}".rstrip())
    print("\n".join(lines))
    return 0


def _commands(env: dict[str, str], mlflow_port: int) -> dict[str, list[str]]:
    store = env["MLFLOW_TRACKING_URI"]
    if not store.startswith("sqlite:///"):  # the jobs write to a server elsewhere
        store = f"sqlite:///{state_folder(env)}/mlflow/mlflow.db"
    return {
        "mlflow": [
            *("mlflow", "server", "--host", LOOPBACK, "--port", str(mlflow_port), "--workers", "1"),
            # The database and the folder that the jobs write to, with and without this server.
            *("--backend-store-uri", store),
            *("--artifacts-destination", str(Path(store.removeprefix("sqlite:///")).parent / "artifacts")),
        ],
        "api-server": ["airflow", "api-server"],
        "scheduler": ["airflow", "scheduler", "--skip-serve-logs"],
        "dag-processor": ["airflow", "dag-processor"],
    }


def _wait_until_ready(started: Running) -> None:
    """Wait for both addresses to answer, the scheduler's heartbeat, and the DAG to be known."""

    def missing() -> str:
        dead = started.dead()
        if dead:
            tail = "\n".join(_log(dead[0]).read_text(errors="replace").splitlines()[-15:])
            raise JobError(f"{dead[0]} ended while starting; its log ({_short(_log(dead[0]))}) says:\n{tail}")
        if get_json(f"{started.mlflow_url}/version") is None:
            return "MLflow"
        health = get_json(f"{started.airflow_url}/api/v2/monitor/health")
        if health is None:
            return "Airflow api-server"
        for part in ("scheduler", "dag_processor"):
            if health[part]["status"] != "healthy":
                return f"Airflow {part}"
        if not api(started).knows(DAG):
            return f"DAG {DAG}"
        return ""

    begun = time.monotonic()
    waiting = "…"
    while waiting:
        waiting = missing()
        seconds = time.monotonic() - begun
        if seconds > _START_SECONDS:
            raise JobError(f"{waiting} did not answer within {_START_SECONDS} s; see {_short(_log('*'))}")
        _progress(f"starting: waiting for {waiting} ({seconds:.0f} s)" if waiting else "")
        time.sleep(1 if waiting else 0)
    print(f"Airflow and MLflow are up after {time.monotonic() - begun:.0f} s")


def _wait_for(done: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        _progress(f"{what} ({end - time.monotonic():.0f} s)")
        time.sleep(0.3)
    _progress("")


def _check_free(name: str, number: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, number))
        except OSError as error:
            reason = error.strerror or str(error)
            raise JobError(
                f"{name}: port {number}: {reason}; choose another one: make up {name}={number + 1}"
            ) from None


def api(found: Running) -> AirflowApi:
    """Return the API of the Airflow that is running."""
    return AirflowApi(found.airflow_url, _passwords())


def _tell(found: Running) -> None:
    print(f"  Airflow  {found.airflow_url}   user admin, password in {_short(_passwords())}")
    print(f"  MLflow   {found.mlflow_url}")
    print(f"  logs     {_short(_log('*'))}")
    print("  next     make trigger; stop with make down")


def _passwords() -> Path:
    return state_folder() / "airflow" / "simple_auth_manager_passwords.json.generated"


def _record() -> Path:
    return state_folder() / "run" / "services.json"


def _write_record(started: Running) -> None:
    """Replace the record at once: `make status` may read it at any time."""
    fresh = _record().with_suffix(".new")
    fresh.write_text(json.dumps(asdict(started), indent=1))
    fresh.replace(_record())


def _log(name: str) -> Path:
    return state_folder() / "log" / f"{name}.log"


def _short(path: Path) -> str:
    return str(path).removeprefix(f"{REPOSITORY}/")


def _progress(text: str) -> None:
    """Show a line that the next one replaces; nothing where the output is a file."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)


def main(arguments: list[str]) -> int:
    """Run the command named on the command line."""
    commands = {"up": up, "down": down, "status": status}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(f"{__doc__}\nCommands: {', '.join(commands)}")
        return 2
    try:
        return commands[arguments[0]]()
    except (JobError, SettingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
