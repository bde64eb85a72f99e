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

from airflow.sdk import DAG, Param, task

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
        "reason": Param(type="string", minLength=1, title="Reason", description="Why; it goes on record."),
        "to": Param(
            None,
            type=["null", "string"],
            pattern=r"^\d{4}-\d{2}-\d{2}-[0-9a-f]{8}$",
            title="Release",
            description="Id of the release to go to. Empty: the one before the current one.",
        ),
    },
    tags=["hymirec", "recommender"],
    default_args={"owner": "hymirec", "retries": 0, "execution_timeout": timedelta(hours=1)},
) as dag:

    @task(multiple_outputs=False)
    def resolve(params: Any = None, dag_run: Any = None, run_id: str | None = None) -> dict[str, str | None]:
        """Turn the run's parameters into the job's options; who is the one that triggered it."""
        return {
            "warehouse": params["warehouse"],
            "to": params["to"],
            "reason": params["reason"],
            "by": dag_run.triggering_user_name or "Airflow",
            "refresh_id": run_id,
        }

    resolve() >> JobOperator(
        task_id="rollback", job="rollback", resolver="resolve", doc_md="`python -m jobs.rollback --help`"
    )
