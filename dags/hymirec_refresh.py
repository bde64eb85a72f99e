"""### The daily refresh of HyMiRec

Turns one day of events and the item catalogue into one published release: the interests of every user and
an ANN index.

| task | what it does | runs as |
|---|---|---|
| resolve | which day, which warehouse, which profile | Python |
| check_inputs | contract; bad rows to quarantine, a breach stops the run | Spark |
| update_histories | yesterday's histories + the day's events | Spark |
| train_encoder | stage 1: the content encoder, tuned end to end, when due | training launcher |
| embed_catalog | states of texts that are new | Spark |
| train_item_space | stage 1: item vectors from states and purchases, tuned when due | training launcher |
| fit_codebook | the codebook, when due; a new generation of it on drift | subprocess |
| encode_items | codes of new items; gate: the codebook has not collapsed | Spark |
| train_recommender | stage 2: K interests a user, when due | training launcher |
| evaluate | held-out days, beside the champion and baselines | training launcher |
| choose_model | gate: the model trained today, or the champion it was to replace | subprocess |
| champion_serves | after a refusal the tasks of the group champion compute the day with the champion's model; \
else they are skipped | Python |
| export_interests | interests of all users, from their history up to the day | Spark |
| build_index | ANN index that reaches the recall target | subprocess |
| publish | gate, then one atomic switch of `releases/CURRENT` | subprocess |

Every task is a transaction on the partition `ds`: it can be cleared and rerun at any time.

**Which day.** `ds` of the run's conf; else the logical date (scheduled runs, backfills,
`airflow dags test … DAY`); else the oldest day with events that the current release does not cover (the newest day
before the first release).

    airflow dags trigger hymirec_refresh --conf '{"ds": "2017-12-03"}'
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from airflow.sdk import DAG, BaseOperator, CronDataIntervalTimetable, Param, TaskGroup, TriggerRule, chain, task

from dags.launch import JobOperator, SparkJobOperator, warehouse_param


class Job(NamedTuple):
    """A job of the chain: how it is started, and after how long it counts as stuck."""

    name: str
    operator: type[SparkJobOperator | JobOperator]
    timeout: timedelta
    overrides: tuple[str, ...] = ()
    """Which of launch.OVERRIDES it takes."""


JOBS = {
    job.name: job
    for job in (
        Job("check_inputs", SparkJobOperator, timedelta(hours=2)),
        Job("update_histories", SparkJobOperator, timedelta(hours=4)),
        Job("train_encoder", JobOperator, timedelta(hours=12), overrides=("retrain",)),
        Job("embed_catalog", SparkJobOperator, timedelta(hours=12)),
        Job("train_item_space", JobOperator, timedelta(hours=12), overrides=("retrain",)),
        Job("fit_codebook", JobOperator, timedelta(hours=4), overrides=("recode",)),
        Job("encode_items", SparkJobOperator, timedelta(hours=4)),
        Job("train_recommender", JobOperator, timedelta(hours=24), overrides=("retrain",)),
        Job("evaluate", JobOperator, timedelta(hours=4)),
        Job("choose_model", JobOperator, timedelta(hours=1)),
        Job("export_interests", SparkJobOperator, timedelta(hours=12)),
        Job("build_index", JobOperator, timedelta(hours=4)),
        Job("publish", JobOperator, timedelta(hours=1), overrides=("promote",)),
    )
}
TRAINED = list(JOBS)[: list(JOBS).index("export_interests")]
"""Tasks up to the choice of the model, in order."""
AGAIN = ("embed_catalog", "train_item_space", "fit_codebook", "encode_items", "evaluate")
"""Tasks that compute the day once more, with the champion's model."""
RELEASED = list(JOBS)[len(TRAINED) :]

PARAMS = {
    "warehouse": warehouse_param(),
    "profile": Param(
        os.environ.get("HYMIREC_PROFILE", "demo"),
        type="string",
        minLength=1,
        title="Profile",
        description="A profile in infra/profiles, or a path to a YAML file.",
    ),
    "ds": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Day",
        description="Day (UTC) to refresh, YYYY-MM-DD. Empty: see the documentation of this DAG.",
    ),
    "retrain": Param(
        None,
        type=["null", "string"],
        enum=[None, "auto", "always", "never"],
        title="Retrain",
        description="auto: train models that are due; always; never. Empty: as the profile says.",
    ),
    "recode": Param(
        None,
        type=["null", "string"],
        enum=[None, "auto", "always"],
        title="Recode",
        description="always: fit a new codebook, which merges its generations and changes all codes.",
    ),
    "promote": Param(
        None,
        type=["null", "string"],
        enum=[None, "auto", "dry-run", "never"],
        title="Promote",
        description="auto: switch to a release that passes the gate; never: publish it without; dry-run: only judge. "
        "Empty: as the profile says.",
    ),
}


def schedule() -> CronDataIntervalTimetable | None:
    """Return when the DAG runs: cron expression HYMIREC_SCHEDULE (default ``@daily``; ``none``: never).

    The run of a data interval starts at the interval's end, so the partition of its day is complete.
    """
    expression = os.environ.get("HYMIREC_SCHEDULE", "@daily")
    return None if expression == "none" else CronDataIntervalTimetable(expression, timezone="UTC")


def start(name: str, overrides: tuple[str, ...] = (), trigger_rule: str = TriggerRule.ALL_SUCCESS) -> BaseOperator:
    """Return the task that runs a job."""
    job = JOBS[name]
    return job.operator(
        task_id=name,
        job=name,
        resolver="resolve",
        overrides=overrides,
        execution_timeout=job.timeout,
        trigger_rule=trigger_rule,
        doc_md=f"`python -m jobs.{name} --help`",
    )


with DAG(
    "hymirec_refresh",
    description="One day of events and the catalogue become one published release",
    doc_md=__doc__,
    schedule=schedule(),
    start_date=datetime(1970, 1, 1, tzinfo=UTC),  # a run of a day before it has no task, and succeeds
    catchup=False,
    max_active_runs=1,  # each day builds on the one before
    params=PARAMS,
    tags=["hymirec", "recommender"],
    default_args={
        "owner": "hymirec",
        "retries": int(os.environ.get("HYMIREC_RETRIES", "2")),
        "retry_delay": timedelta(seconds=30),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=15),
    },
) as dag:

    @task(execution_timeout=timedelta(minutes=10), multiple_outputs=False)
    def resolve(
        params: Any = None,
        dag_run: Any = None,
        run_id: str | None = None,
        logical_date: datetime | None = None,
    ) -> dict[str, str | None]:
        """Work out the run's day, warehouse and profile, whatever kind of run it is."""
        from airflow.sdk.exceptions import AirflowFailException

        from hymirec_model.errors import HymirecError
        from jobs.platform.resolver import resolve_refresh

        try:
            return resolve_refresh(
                params,
                conf=dag_run.conf or {},
                logical_date=logical_date,
                manual=dag_run.run_type == "manual",
                refresh_id=str(run_id),
            )
        except HymirecError as error:
            raise AirflowFailException(f"error: {error}") from None

    @task.short_circuit(execution_timeout=timedelta(minutes=10), ignore_downstream_trigger_rules=False)
    def champion_serves(ti: Any = None) -> bool:
        """Whether the day's own model was refused, so that the tasks of the group champion have to run."""
        from jobs.platform import model_choice
        from jobs.platform.warehouse import Warehouse

        refresh = ti.xcom_pull(task_ids="resolve")
        return model_choice.champion_serves(Warehouse(refresh["warehouse"]), refresh["ds"])

    resolved = resolve()
    trained = [start(name, JOBS[name].overrides) for name in TRAINED]
    refused = champion_serves()
    with TaskGroup("champion", tooltip="The day computed again with the champion's model, after a refusal"):
        again = [start(name) for name in AGAIN]
    # Whether the champion's tasks ran or were skipped, the day goes on; not when one of them failed.
    export = start(RELEASED[0], JOBS[RELEASED[0]].overrides, TriggerRule.NONE_FAILED)
    chain(resolved, *trained, refused, *again, export, *[start(name, JOBS[name].overrides) for name in RELEASED[1:]])
    chain(trained[-1], export)
