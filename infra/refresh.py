"""Run one refresh: in the foreground (``demo``, ``run``) or by the scheduler (``trigger``). Called by make.

The foreground commands are ``airflow dags test hymirec_refresh DS --conf …``. Its long log goes to var/log;
people see a line a task. They use a metadata database of their own, because a scheduler that runs at the same
time (`make up`) would take the tasks of the foreground run for its own.

Options come from the environment, where make puts them: DS, WAREHOUSE, PROFILE, RETRAIN, RECODE,
PROMOTE, DRIFT. Without the second and third, HYMIREC_WAREHOUSE and HYMIREC_PROFILE count, as for the scheduler.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from hymirec_model.errors import HymirecError
from infra import services
from infra.airflow_db import DAG, migrate
from infra.local_env import SettingError, environment
from infra.progress import TaskLog
from jobs.platform import foreground_lock
from jobs.platform.errors import JobError
from jobs.platform.local import REPOSITORY, state_folder
from jobs.platform.profile import load_profile
from jobs.platform.resolver import check_conf, next_day, released_day
from jobs.platform.warehouse import Warehouse

FIRST_DEMO_DAY = "2017-12-03"  # leaves eleven months of history and four weeks of days to go on with
DEFAULT_PROFILE = "demo"
BUILT_IN_DATA = "completejourney"
BUILT_IN_DAYS = ("2017-01-01", "2018-01-01")  # first and last: by them its data are recognised


def demo() -> int:
    """Bring in the built-in data if the warehouse is empty, refresh its next day, and show what came out."""
    conf = _conf(os.environ.get("DS"))
    warehouse = conf["warehouse"]
    profile = conf.get("profile", _profile())
    status = _import_built_in(warehouse) or _job("fetch_weights", "--profile", profile)
    if status:
        return status
    status = foreground(conf.get("ds") or _day_to_refresh(warehouse))
    if status:
        return status
    return _job("summarize", "--warehouse", warehouse)


def run() -> int:
    """Refresh the day DS."""
    ds = os.environ.get("DS")
    if not ds:
        raise JobError("which day? make run DS=2017-12-03")
    return foreground(ds)


def foreground(ds: str) -> int:
    """Run ``airflow dags test`` for ``ds``, show its progress, and return its exit code."""
    conf = _conf(ds)
    del conf["ds"]  # the logical date says it
    warehouse = Warehouse(conf["warehouse"])
    with foreground_lock.hold(warehouse, ds) as lock:
        _check_free(warehouse)
        return _dags_test(ds, conf, lock)


def _check_free(warehouse: Warehouse) -> None:
    """Refuse a warehouse in which the scheduler is at work; runs that it starts later look out for our lock."""
    found = services.running()
    for run in services.api(found).running(DAG) if found else ():
        given = (run["conf"] or {}).get("warehouse")
        if Warehouse(given or environment()["HYMIREC_WAREHOUSE"]).uri == warehouse.uri:
            raise JobError(
                f"warehouse {warehouse.uri}: seen {run['dag_run_id']} of the scheduler at work in it; allowed: one run "
                "at a time; wait for its end (`make status`), or stop the scheduler with `make down`"
            )


def _dags_test(ds: str, conf: dict[str, str], lock: int) -> int:
    env = environment()
    state = state_folder(env)
    env["HYMIREC_FOREGROUND"] = "1"
    env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{state}/airflow/foreground.db"
    env.setdefault("HYMIREC_RETRIES", "0")  # someone is watching: show a failure, do not wait and retry
    env["COLUMNS"] = "200"
    log_path = state / "log" / f"refresh-{ds}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    migrate(env, log_path.with_name("airflow-db.log"))
    command = ["airflow", "dags", "test", DAG, ds, "--conf", json.dumps(conf)]
    profile = conf.get("profile", _profile())
    print(f"refresh of {ds} · warehouse {_short(conf['warehouse'])} · profile {profile}")
    print(f"full log: {_short(str(log_path))}", flush=True)
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        pass_fds=[lock],
    )
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    assert process.stdout is not None
    with log_path.open("w") as log, TaskLog() as tasks:
        log.write(f"$ {' '.join(command)}\n")
        try:
            for line in process.stdout:
                log.write(line)
                log.flush()
                tasks.read(line)
        except KeyboardInterrupt:  # the tasks got it too; let them end
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            return 130
    status = process.wait()
    if status:
        print(f"\n{tasks.failure}\nfull log: {_short(str(log_path))}", file=sys.stderr)
    return status


def trigger() -> int:
    """Hand the run to the scheduler and return."""
    env = environment()
    running = services.running()
    if running is None:
        raise JobError("Airflow is not running; start it with `make up`")
    conf = _conf(os.environ.get("DS"))
    demo = conf["warehouse"] == str(REPOSITORY / "var" / "warehouse")  # another one waits for somebody's own log
    status = _import_built_in(conf["warehouse"]) if demo else 0
    if status:
        return status
    # In the conf, so that a run that is cleared refreshes the same day again.
    conf.setdefault("ds", _day_to_refresh(conf["warehouse"]))
    command = ["airflow", "dags", "trigger", DAG, "--conf", json.dumps(conf), "-o", "json"]
    done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        return done.returncode
    run_id = json.loads(done.stdout.strip().splitlines()[-1])[0]["dag_run_id"]  # log lines come before the JSON
    print(f"triggered {run_id} for {conf['ds']}")
    print(f"watch it: {running.airflow_url}/dags/{DAG}/runs/{run_id}, or `make status`")
    return 0


def _import_built_in(warehouse: str) -> int:
    if Warehouse(warehouse).partitions("events"):
        return 0
    print("importing The Complete Journey: 1.47 million purchases of 2,469 households", flush=True)
    return _job("import_events", "--source", BUILT_IN_DATA, "--warehouse", warehouse)


def _day_to_refresh(warehouse: str) -> str:
    target = Warehouse(warehouse)
    days = target.partitions("events")
    if released_day(target) is None and days and (days[0], days[-1]) == BUILT_IN_DAYS:
        return FIRST_DEMO_DAY
    return next_day(target)


def _job(name: str, *arguments: str) -> int:
    command = [sys.executable, "-m", f"jobs.{name}", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, env=environment(), check=False).returncode


def _conf(ds: str | None) -> dict[str, str]:
    """Return the conf of the run, checked here already so that a slip shows at once.

    Keys that were not given are left to the DAG's defaults.
    """
    given = {key: os.environ.get(key.upper()) for key in ("profile", "retrain", "recode", "promote", "drift")}
    conf = {"warehouse": _warehouse(), **{key: value for key, value in given.items() if value}}
    if ds:
        conf["ds"] = ds
    load_profile(conf.get("profile", _profile()))
    check_conf({"profile": _profile(), **conf}, conf)
    return conf


def _profile() -> str:
    return os.environ.get("HYMIREC_PROFILE") or DEFAULT_PROFILE


def _warehouse() -> str:
    given = os.environ.get("WAREHOUSE") or environment()["HYMIREC_WAREHOUSE"]
    return given if "://" in given else str(Path(given).expanduser().absolute())


def _short(path: str) -> str:
    return path.removeprefix(f"{REPOSITORY}/")


def main(arguments: list[str]) -> int:
    """Run the command named on the command line."""
    commands = {"demo": demo, "run": run, "trigger": trigger}
    if len(arguments) != 1 or arguments[0] not in commands:
        print(f"{__doc__}\nCommands: {', '.join(commands)}")
        return 2
    try:
        return commands[arguments[0]]()
    except (HymirecError, SettingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
