"""How a task starts a job: through Spark submit, or as a subprocess of the training launcher.

Both operators take the job's name and what the task ``resolver`` worked out (for a refresh: warehouse, ds, profile,
refresh_id, retrain, recode, promote, drift), turn it into the job's command-line options, stream the job's output
into the task's log and end the task by the job's exit code: 2 is bad input, which does not mend itself, so the task
fails at once; any other code is retried. A task that ends well tells in the events of its outlets what they are about.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import BaseOperator, Param
from airflow.sdk.exceptions import AirflowException

from dags import assets, failures
from jobs.platform.local import REPOSITORY

if TYPE_CHECKING:
    from airflow.sdk import Context

OVERRIDES = ("retrain", "recode", "promote", "drift")  # options that only some jobs have; the others every job has
_GRACE_SECONDS = 15
_KEPT_LINES = 50


def warehouse_param() -> Param:
    """Return the parameter ``warehouse`` that every DAG has."""
    return Param(
        os.environ.get("HYMIREC_WAREHOUSE", str(REPOSITORY / "var" / "warehouse")),
        type="string",
        pattern=r"^(?!\w+://)\S|^(file|s3|s3a|gs|hdfs)://\S",
        allowed="a folder, or a URI of file, s3, s3a, gs, hdfs",
        title="Warehouse",
        description="A local folder, or an s3a://, gs:// or hdfs:// URI.",
    )


def options(refresh: Mapping[str, str | None], overrides: Collection[str]) -> list[str]:
    """Return ``refresh`` as options: without None, and of OVERRIDES only those that the job knows."""
    return [
        part
        for name, value in refresh.items()
        if value is not None and (name not in OVERRIDES or name in overrides)
        for part in (f"--{name.replace('_', '-')}", value)
    ]


def resolved(task: SparkJobOperator | JobOperator, context: Context) -> dict[str, str | None]:
    """Return what the task ``resolver`` returned."""
    # Pulled here, not handed over as an XCom argument: that would add an edge from the resolver to each task.
    return dict(context["ti"].xcom_pull(task_ids=task.resolver))


class SparkJobOperator(SparkSubmitOperator):
    """Runs ``jobs/<job>.py`` through spark-submit on the connection ``spark_default``."""

    ui_color = "#e8a838"

    def __init__(self, *, job: str, resolver: str, overrides: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(
            application=str(REPOSITORY / "infra" / "spark_job.py"),
            conn_id="spark_default",
            name=f"hymirec {job}",
            **kwargs,
        )
        self.job = job
        self.resolver = resolver
        self.overrides = overrides

    def execute(self, context: Context) -> None:
        """Submit the job and wait for it."""
        refresh = resolved(self, context)
        self.application_args = [self.job, *options(refresh, self.overrides)]
        try:
            super().execute(context)
        except AirflowException as error:
            found = re.search(r"Error code is: (-?\d+)", str(error))
            if found is None:
                raise
            links = failures.links(context, self.job, str(refresh["refresh_id"]))
            failures.fail(self.job, int(found[1]), str(error).splitlines(), links)
        assets.tell(context, self.outlets, refresh)


class JobOperator(BaseOperator):
    """Runs ``python -m jobs.platform.launcher <job> …``: torchrun where several devices can share the job."""

    ui_color = "#9bc8e8"

    def __init__(self, *, job: str, resolver: str, overrides: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.resolver = resolver
        self.overrides = overrides
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> None:
        """Start the job in a process group of its own, log what it prints and wait for it."""
        refresh = resolved(self, context)
        command = [sys.executable, "-m", "jobs.platform.launcher", self.job, *options(refresh, self.overrides)]
        self.log.info("Command: %s", command)
        self._process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        kept: deque[str] = deque(maxlen=_KEPT_LINES)
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                if line.strip():
                    self.log.info("%s", line.rstrip())
                    kept.append(line)
            exit_code = self._process.wait()
        except BaseException:  # Ctrl-C in `airflow dags test`, which calls no on_kill
            self.on_kill()
            raise
        if exit_code != 0:
            links = failures.links(context, self.job, str(refresh["refresh_id"]))
            failures.fail(self.job, exit_code, kept, links)
        assets.tell(context, self.outlets, refresh)

    def on_kill(self) -> None:
        """End the job and what it started; Airflow calls this on a timeout and when a run is stopped."""
        if self._process is None:
            return
        for stop in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, stop)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_GRACE_SECONDS)
