"""### Back to an earlier release

Switches `releases/CURRENT`, the aliases of the model in MLflow and the models that later days build on, together, and
puts on record who did it, when and why (`releases/switches`).

    airflow dags trigger hymirec_rollback --conf '{"reason": "click rate fell by a tenth"}'

`to` names a release; empty: the one before the current one. Pause `hymirec_refresh` first if the cause lies in the
data, or its next run releases them again. The model that was left does not pass the gate again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, chain, task

from dags.assets import announce_release
from dags.failures import notifier
from dags.launch import JobOperator, warehouse_param

with DAG(
    "hymirec_rollback",
    description="Back to an earlier release: CURRENT, aliases and models together",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2000, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={
        "warehouse": warehouse_param(),
        "reason": Param(
            type="string",
            pattern=r"\S",
            allowed="a text that is not empty",
            title="Reason",
            description="Why; it goes on record.",
        ),
        "to": Param(
            None,
            type=["null", "string"],
            pattern=r"^\d{4}-\d{2}-\d{2}-[0-9a-f]{8}$",
            allowed="the id of a release, such as 2017-12-03-0123abcd",
            title="Release",
            description="Id of the release to go to. Empty: the one before the current one.",
        ),
    },
    tags=["hymirec", "recommender"],
    default_args={
        "owner": "hymirec",
        "retries": 0,  # a person is there and reads the error
        "execution_timeout": timedelta(hours=1),
        "on_failure_callback": notifier(),
    },
) as dag:

    @task(multiple_outputs=False, doc_md="**Does:** turns what the form says into the job's options.")
    def resolve(params: Any = None, dag_run: Any = None, run_id: str | None = None) -> dict[str, str | None]:
        """Turn the run's parameters into the job's options; who is the one that triggered it."""
        from jobs.platform.resolver import absolute_warehouse

        return {
            "warehouse": absolute_warehouse(params["warehouse"]),
            "to": params["to"],
            "reason": params["reason"],
            "by": dag_run.triggering_user_name or "Airflow",
            "refresh_id": run_id,
        }

    resolved = resolve()
    roll_back = JobOperator(
        task_id="rollback",
        job="rollback",
        resolver="resolve",
        doc_md="**Does:** checks the release in full, then switches aliases, models, record and `CURRENT`.\n\n"
        "**When it fails:** the error names the releases that are there; trigger a new run with one of them. If it was "
        "cut short, clear the task: it completes the switch.\n\n**Options:** `python -m jobs.rollback --help`",
    )
    chain(resolved, roll_back, announce_release())
