"""What a task that failed tells, and whom.

The error of a job names the job, how it ended and its own last words, and links to where more is told. Whom it
reaches is set outside of the DAG: HYMIREC_NOTIFIER is the import path of a notifier of Airflow (Slack, mail and others
come as providers), HYMIREC_NOTIFIER_KWARGS its arguments as JSON; templates in them may use ``exception`` and ``ti``.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from airflow.sdk import BaseNotifier
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from jobs.platform.local import REPOSITORY

if TYPE_CHECKING:
    from airflow.sdk import Context


BAD_INPUT = 2
_PROGRESS_BAR = re.compile(r"\d+%\|.*\|")
_MLFLOW_SECONDS, _PAGE_SECONDS = 3, 300


def fail(job: str, exit_code: int, lines: Iterable[str], links: Mapping[str, str]) -> NoReturn:
    """End the task of a job that failed: for good when its input is bad, else with a retry."""
    last, reason = "", ""
    for line in lines:
        if _PROGRESS_BAR.search(line):  # a bar prints after the traceback when it is torn down
            continue
        last = line.strip() or last
        reason = line.strip() if line.startswith("error: ") else reason
    where = "".join(f"\n{name}: {url}" for name, url in links.items())
    if exit_code == BAD_INPUT:
        raise AirflowFailException(f"{job}: {reason or last}{where}")
    ending = f"ended by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    raise AirflowException(f"{job}: {ending}: {reason or last or 'it printed nothing'}{where}")


def links(context: Context, job: str, refresh_id: str) -> dict[str, str]:
    """Return addresses of the task's log and of the job's MLflow run, those that are known."""
    # A foreground run has a database of its own, which no page shows.
    log = {} if os.environ.get("HYMIREC_FOREGROUND") else {"log": context["ti"].log_url}
    run = _mlflow_run(job, refresh_id)
    return {**log, **({"MLflow": run} if run else {})}


def _mlflow_run(job: str, refresh_id: str) -> str | None:
    """Address of the newest run of a job, asked of MLflow's server; None if there is no server or no run."""
    # Jobs may write to a database beside a server; then the second names the server.
    for name in ("MLFLOW_TRACKING_URI", "HYMIREC_MLFLOW_URL"):
        server = os.environ.get(name, "").rstrip("/")
        if server.startswith(("http://", "https://")):
            break
    else:
        return None
    api = f"{server}/api/2.0/mlflow"
    wanted = f"tags.`hymirec.refresh_id` = '{refresh_id}' and attributes.run_name = '{job}'"
    try:
        experiment = _json(f"{api}/experiments/get-by-name?experiment_name=hymirec")["experiment"]["experiment_id"]
        query = {"experiment_ids": [experiment], "filter": wanted, "max_results": 1}
        (run,) = _json(f"{api}/runs/search", query)["runs"]
        return f"{server}/#/experiments/{experiment}/runs/{quote(run['info']['run_id'])}"
    except (OSError, ValueError, KeyError):  # a message without the link is better than none
        return None


def _json(url: str, body: Mapping[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_MLFLOW_SECONDS) as answer:
        return json.load(answer)


def write_page(context: Context, advice: str) -> None:
    """Have the page of the day told what failed, by the job report_failure; a callback of tasks that run a job."""
    task: Any = context["task"]  # one of dags.launch
    refresh = context["ti"].xcom_pull(task_ids=task.resolver)
    options = {name: refresh[name] for name in ("warehouse", "ds", "refresh_id")}
    options |= {"task": task.task_id, "error": str(context.get("exception") or "it was ended"), "advice": advice}
    command = [sys.executable, "-m", "jobs.report_failure"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=_PAGE_SECONDS, check=False)
    logging.getLogger(__name__).info("%s", (done.stdout + done.stderr).strip())


class LogNotifier(BaseNotifier):
    """Logs one line: what failed, why, and where to look."""

    template_fields = ("text",)
    TEXT = "{{ ti.dag_id }}.{{ ti.task_id }} failed in {{ ti.run_id }}: {{ exception }}"

    def __init__(self, text: str = TEXT) -> None:
        super().__init__()
        self.text = text

    def notify(self, context: Context) -> None:
        """Log the text."""
        self.log.error("%s", " · ".join(self.text.splitlines()))


def notifier() -> BaseNotifier:
    """Return who is told when a task has failed for good.

    Raises
    ------
    ValueError
        If HYMIREC_NOTIFIER or its arguments cannot be used; Airflow shows it as an import error of the DAG.
    """
    path = os.environ.get("HYMIREC_NOTIFIER")
    if not path:
        return LogNotifier()
    arguments = os.environ.get("HYMIREC_NOTIFIER_KWARGS") or "{}"
    module, _, name = path.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"HYMIREC_NOTIFIER: seen {path} with HYMIREC_NOTIFIER_KWARGS {arguments}: {error}; allowed: the import "
            "path of a notifier, and its arguments as a JSON object"
        ) from error
    if not isinstance(made, BaseNotifier):
        raise ValueError(f"HYMIREC_NOTIFIER: seen {path}; allowed: a class of notifiers, airflow.sdk.BaseNotifier")
    return made
