"""A backfill by Airflow's own command, with no limit of its own: days in order, one at a time; failures come by mail.

The warehouse has no events, so that each day ends in its first job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fault_day import wait_until
from infra.airflow_api import AirflowApi
from infra.airflow_db import DAG, migrate
from infra.local_env import environment
from tests.integration.services import Services, bundle, local
from tests.mail import MailServer, text_of

pytestmark = pytest.mark.integration
DAYS = ("2017-12-03", "2017-12-04", "2017-12-05")
IMPATIENT = f'''"""{DAG} of Airflow, whose runs look every few seconds whether it is their turn."""

from dags.hymirec_refresh import dag

dag.get_task("resolve").poke_interval = 10
'''


@dataclass(frozen=True)
class Backfilled:
    """What Airflow says of the days afterwards, and the mail that was sent."""

    tasks: list[dict[str, dict[str, Any]]]
    """Of each day, in order of days, its task instances by their id."""
    mail: list[str]
    refused: str
    """What a foreground run said meanwhile."""
    pauses: list[bool]
    """Whether Airflow called the backfill paused: after it was told to pause, and after it was told to go on."""


@pytest.fixture(scope="module")
def backfilled(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backfilled]:
    arguments = {
        "to": "team@example.org",
        "from_email": "airflow@example.org",
        "subject": "failed",
        "html_content": "{{ exception }}",
    }
    warehouse = str(tmp_path_factory.mktemp("empty"))
    dags = tmp_path_factory.mktemp("dags")
    (dags / "impatient.py").write_text(IMPATIENT)
    with MailServer() as mail:
        services = Services(
            repository,
            tmp_path_factory.mktemp("backfill"),
            HYMIREC_SCHEDULE="@daily",
            HYMIREC_WAREHOUSE=warehouse,
            HYMIREC_NOTIFIER="airflow.providers.smtp.notifications.smtp.SmtpNotifier",
            HYMIREC_NOTIFIER_KWARGS=json.dumps(arguments),
            AIRFLOW_CONN_SMTP_DEFAULT=mail.connection,
            AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=json.dumps([bundle("dags-folder", dags)]),
        )
        try:
            # Before the scheduler writes to the same SQLite, which may refuse one of two writers.
            migrate(environment(local(services.state)), services.state / "airflow-db.log")
            services.airflow("dags", "reserialize")
            services.airflow("backfill", "create", "--dag-id", DAG, "--from-date", DAYS[0], "--to-date", DAYS[-1])
            done = services.make("up")
            assert done.returncode == 0, done.stdout + done.stderr
            pauses = [paused(services.api, pause) for pause in (True, False)]
            foreground = services.make("run", DS=DAYS[0], WAREHOUSE=warehouse)
            runs = services.ended(DAG, len(DAYS), "backfill")
            tasks = [{task["task_id"]: task for task in services.api.tasks(DAG, run["dag_run_id"])} for run in runs]
            yield Backfilled(tasks, [text_of(message) for message in mail.received], foreground.stderr, pauses)
        finally:
            services.make("down")


def paused(api: AirflowApi, pause: bool) -> bool:
    """Pause the backfill or let it go on; return what Airflow says of it then."""
    # SQLite may refuse while the scheduler writes.
    assert wait_until(lambda: api.pause_backfills(DAG, pause), seconds=60, pause=0.5)
    (backfill,) = api.get(f"backfills?dag_id={DAG}")["backfills"]
    return bool(backfill["is_paused"])


def test_days_come_in_order_one_at_a_time(backfilled: Backfilled) -> None:
    times = [(day["check_inputs"]["start_date"], day["check_inputs"]["end_date"]) for day in backfilled.tasks]
    assert len(times) == len(DAYS)
    moments = [moment for pair in times for moment in pair]
    assert moments == sorted(moments)


def test_a_backfill_is_paused_and_goes_on(backfilled: Backfilled) -> None:
    assert backfilled.pauses == [True, False]


def test_each_failure_is_told_with_its_reason_and_a_link(backfilled: Backfilled) -> None:
    for ds, day in zip(DAYS, backfilled.tasks, strict=True):
        assert day["check_inputs"]["state"] == "failed" and day["publish"]["state"] == "upstream_failed"
        (told,) = [text for text in backfilled.mail if f"missing partition events/ds={ds}" in text]
        assert told.startswith("check_inputs: error: ")
        assert f"/runs/{day['check_inputs']['dag_run_id'].replace(':', '%3A').replace('+', '%2B')}/tasks" in told


def test_a_foreground_run_in_the_same_warehouse_is_refused_meanwhile(backfilled: Backfilled) -> None:
    assert re.match(r"error: warehouse \S+: seen \w+__\S+ of the scheduler at work in it; ", backfilled.refused)
