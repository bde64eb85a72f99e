"""How the operators start jobs and read their endings."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags import launch
from dags.assets import HISTORIES

REFRESH = {
    "warehouse": "/a folder/'quoted'; $HOME",
    "ds": "2017-12-03",
    "profile": "demo",
    "refresh_id": "r",
    "retrain": None,
    "recode": None,
}


class TestOptions:
    def test_none_is_left_out_and_nothing_is_quoted(self) -> None:
        assert launch.options(REFRESH, ["retrain"])[:4] == [
            "--warehouse",
            "/a folder/'quoted'; $HOME",
            "--ds",
            "2017-12-03",
        ]
        assert "--retrain" not in launch.options(REFRESH, ["retrain"])
        assert "--refresh-id" in launch.options(REFRESH, ["retrain"])

    def test_an_override_goes_only_to_jobs_that_know_it(self) -> None:
        given = {**REFRESH, "retrain": "always", "recode": "always"}
        assert launch.options(given, ["retrain"])[-2:] == ["--retrain", "always"]
        assert "--retrain" not in launch.options(given, ["recode"])


@pytest.fixture
def fake_job(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a JobOperator run a script in place of the launcher."""

    def make(script: str) -> launch.JobOperator:
        start = subprocess.Popen

        def popen(command: list[str], **kwargs: Any) -> subprocess.Popen[str]:
            assert command[1:4] == ["-m", "jobs.platform.launcher", "publish"]
            return start([sys.executable, "-c", script], **kwargs)

        monkeypatch.setattr(launch.subprocess, "Popen", popen)
        return launch.JobOperator(task_id="publish", job="publish", resolver="resolve")

    return make


def run(operator: Any, resolved: dict[str, str | None] = REFRESH) -> dict[Any, Any]:
    """Call ``execute`` as Airflow does, past the guard against calls from outside a task; return the events."""
    ti = SimpleNamespace(xcom_pull=lambda task_ids: {"resolve": resolved}[task_ids], log_url="http://airflow/log")
    context = {"ti": ti, "outlet_events": defaultdict(SimpleNamespace)}
    type(operator).execute.__wrapped__(operator, context)
    return context["outlet_events"]


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestJobOperator:
    def test_success(self, fake_job: Any) -> None:
        operator = fake_job("print('done')")
        operator.outlets = [HISTORIES]
        events = run(operator)
        assert events[HISTORIES].extra == {name: REFRESH[name] for name in ("warehouse", "ds", "refresh_id")}

    def test_a_rollback_has_no_day_and_no_outlet(self, fake_job: Any) -> None:
        assert not run(fake_job("print('done')"), {"warehouse": "w", "reason": "clicks fell", "refresh_id": "r"})

    def test_bad_input(self, fake_job: Any) -> None:
        with pytest.raises(AirflowFailException, match="publish: error: gate: seen 0") as caught:
            run(fake_job("import sys; print('error: gate: seen 0.1; allowed: 1', file=sys.stderr); sys.exit(2)"))
        assert "\nlog: http://airflow/log" in str(caught.value)

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_on_kill_ends_the_whole_group(self, fake_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launch, "_GRACE_SECONDS", 2)
        script = "import subprocess, time; subprocess.Popen(['sleep', '600']); print('x', flush=True)"
        operator = fake_job(f"{script}; time.sleep(600)")
        thread = threading.Thread(target=run, args=(operator,), daemon=True)
        thread.start()
        end = time.monotonic() + 30
        while operator._process is None or not psutil.Process(operator._process.pid).children():
            assert thread.is_alive() and time.monotonic() < end, "the job did not start"
            time.sleep(0.05)
        family = [psutil.Process(operator._process.pid), *psutil.Process(operator._process.pid).children()]
        operator.on_kill()
        thread.join(10)
        assert not thread.is_alive()
        end = time.monotonic() + 10
        while any(map(alive, family)) and time.monotonic() < end:
            time.sleep(0.05)
        assert not [process for process in family if alive(process)]


class TestSparkJobOperator:
    def operator(self, monkeypatch: pytest.MonkeyPatch, error: str | None) -> Any:
        def execute(self: Any, context: Any) -> None:
            if error:
                raise AirflowException(error)

        monkeypatch.setattr(launch.SparkSubmitOperator, "execute", execute)
        return launch.SparkJobOperator(task_id="check_inputs", job="check_inputs", resolver="resolve")

    def test_arguments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        operator = self.operator(monkeypatch, None)
        run(operator)
        assert operator.application_args[:3] == ["check_inputs", "--warehouse", REFRESH["warehouse"]]
        assert operator.application.endswith("infra/spark_job.py")

    def test_bad_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text = "Cannot execute: spark-submit …. Error code is: 2.\nfoo\nerror: missing partition events/ds=1\n"
        with pytest.raises(AirflowFailException, match="check_inputs: error: missing partition"):
            run(self.operator(monkeypatch, text))

    def test_crash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(AirflowException, match="ended with exit code 1"):
            run(self.operator(monkeypatch, "Cannot execute: spark-submit …. Error code is: 1.\nboom"))
