"""### The daily refresh of HyMiRec

Turns one day of events and the item catalogue into one published release: the interests of every user and
an ANN index.

TASKS

Every task is a transaction on the partition `ds`: it can be cleared and rerun at any time.

**Which day.** `ds` of the run's conf; else the logical date (scheduled runs, backfills,
`airflow dags test … DAY`); else the oldest day with events that the current release does not cover (the newest day
before the first release).

    airflow dags trigger hymirec_refresh --conf '{"ds": "2017-12-03"}'

**One at a time.** A run waits in `resolve` until no other is at work; of those that wait the earliest day goes first.
So a backfill needs no limit of its own. To run a past day again does not move `CURRENT` back.

**Who is told.** Other DAGs by the assets `hymirec_items`, `hymirec_histories`, `hymirec_interests` and
`hymirec_release`; people, when a task has failed for good, by the notifier in `HYMIREC_NOTIFIER`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from airflow.sdk import (
    DAG,
    BaseOperator,
    CronDataIntervalTimetable,
    Param,
    PokeReturnValue,
    TaskGroup,
    TriggerRule,
    chain,
    task,
)

from dags.assets import announce_release
from dags.failures import notifier, write_page
from dags.launch import warehouse_param
from dags.refresh_jobs import JOBS, task_table
from jobs.platform.local import REPOSITORY

TRAINED = list(JOBS)[: list(JOBS).index("export_interests")]
"""Tasks up to the choice of the model, in order."""
AGAIN = ("embed_catalog", "train_item_space", "fit_codebook", "encode_items", "evaluate")
"""Tasks that compute the day once more, with the champion's model."""
RELEASED = list(JOBS)[len(TRAINED) :]
PROFILES = sorted(path.stem for path in (REPOSITORY / "infra" / "profiles").glob("*.yaml"))


def choice(title: str, description: str, **words: str) -> Param:
    """Return a parameter in place of a setting of the profile: one of ``words``, each with its meaning."""
    return Param(
        None,
        type=["null", "string"],
        enum=[None, *words],
        values_display={"null": "as the profile says", **{word: f"{word}: {text}" for word, text in words.items()}},
        title=title,
        description=description,
        section="Instead of what the profile says",
    )


# Airflow shows a refused value with all of these words, so ``allowed`` says in plain ones what a pattern means.
PARAMS = {
    "ds": Param(
        None,
        type=["null", "string"],
        format="date",
        allowed="a day written YYYY-MM-DD",
        title="Day",
        description="Day (UTC) to refresh, YYYY-MM-DD. Empty: the oldest day that the current release does not cover.",
    ),
    "warehouse": warehouse_param(),
    "profile": Param(
        os.environ.get("HYMIREC_PROFILE", "demo"),
        type="string",
        pattern=rf"^({'|'.join(PROFILES)})$|/|\.ya?ml$",
        allowed=f"{', '.join(PROFILES)}, or a path to a YAML file",
        examples=PROFILES,
        title="Profile",
        description=f"One of infra/profiles ({', '.join(PROFILES)}), or a path to a YAML file.",
    ),
    "retrain": choice(
        "Retrain", "Whether models are trained.", auto="those that are due", always="all, today", never="none"
    ),
    "recode": choice(
        "Recode",
        "Whether all items get new codes, which merges the generations of the codebook.",
        auto="when that is due",
        always="today",
    ),
    "promote": choice(
        "Promote",
        "What becomes of a release that passes the gate.",
        **{"auto": "switch to it", "dry-run": "only judge, write nothing", "never": "write it, do not switch"},
    ),
    "drift": choice(
        "Drift",
        "What happens where the day's input is unlike the days before it.",
        stop="the run ends, nothing is accepted",
        accept="it passes; later days are not compared with it",
        restart="it passes; later days are compared with it, and with nothing before it",
    ),
}


def schedule() -> CronDataIntervalTimetable | None:
    """Return when the DAG runs: cron expression HYMIREC_SCHEDULE (default ``@daily``; ``none``: never).

    The run of a data interval starts at the interval's end, so the partition of its day is complete.
    """
    expression = os.environ.get("HYMIREC_SCHEDULE", "@daily")
    return None if expression == "none" else CronDataIntervalTimetable(expression, timezone="UTC")


def start(name: str, *, trigger_rule: str = TriggerRule.ALL_SUCCESS, again: bool = False) -> BaseOperator:
    """Return the task that runs a job; ``again`` with the champion's model."""
    job = JOBS[name]
    return job.operator(
        task_id=name,
        job=name,
        resolver="resolve",
        overrides=() if again else job.overrides,
        pool=job.pool,
        outlets=list(job.outlets),
        execution_timeout=job.timeout,
        trigger_rule=trigger_rule,
        doc_md=job.document(again=again),
        on_failure_callback=[notifier(), partial(write_page, advice=job.when_it_fails)],
    )


with DAG(
    "hymirec_refresh",
    description="One day of events and the catalogue become one published release",
    doc_md=(__doc__ or "").replace("TASKS", task_table()),
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
        "execution_timeout": timedelta(minutes=10),  # of tasks that are no jobs
        "on_failure_callback": notifier(),
    },
) as dag:

    @task.sensor(
        mode="reschedule",  # in no slot while it waits
        poke_interval=30,
        exponential_backoff=True,  # each look starts a process
        max_wait=timedelta(minutes=3),
        timeout=timedelta(days=7).total_seconds(),
        doc_md="**Does:** waits until no other run is at work, the earliest day first; then works out day, warehouse "
        "and profile. Its log says for what it waits.\n\n**When it fails:** the error names the value of the conf or "
        "the setting of the profile; trigger a new run with the right one.",
    )
    def resolve(
        params: Any = None,
        dag_run: Any = None,
        run_id: str | None = None,
        logical_date: datetime | None = None,
        ti: Any = None,
    ) -> PokeReturnValue:
        """Work out the run's day, warehouse and profile, whatever kind of run it is, once it is its turn."""
        from airflow.sdk.exceptions import AirflowFailException

        from dags import turns
        from hymirec_model.errors import HymirecError
        from jobs.platform.resolver import resolve_refresh

        try:
            refresh = resolve_refresh(
                params,
                conf=dag_run.conf or {},
                logical_date=logical_date,
                manual=dag_run.run_type == "manual",
                refresh_id=str(run_id),
            )
        except HymirecError as error:
            raise AirflowFailException(f"error: {error}") from None
        ahead = turns.ahead(ti, str(refresh["warehouse"]))
        if ahead is not None:
            print(f"waiting for {ahead}")
        return PokeReturnValue(ahead is None, refresh)

    @task.short_circuit(
        ignore_downstream_trigger_rules=False,
        doc_md="**Does:** goes on to the tasks of the group champion after a refusal by choose_model; else skips "
        "them.\n\n**When it fails:** choose_model has written no choice for the day; clear that task.",
    )
    def champion_serves(ti: Any = None) -> bool:
        """Whether the day's own model was refused, so that the tasks of the group champion have to run."""
        from jobs.platform import model_choice
        from jobs.platform.warehouse import Warehouse

        refresh = ti.xcom_pull(task_ids="resolve")
        return model_choice.champion_serves(Warehouse(refresh["warehouse"]), refresh["ds"])

    resolved = resolve()
    trained = [start(name) for name in TRAINED]
    refused = champion_serves()
    with TaskGroup("champion", tooltip="The day computed again with the champion's model, after a refusal"):
        again = [start(name, again=True) for name in AGAIN]
    # Whether the champion's tasks ran or were skipped, the day goes on; not when one of them failed.
    export = start(RELEASED[0], trigger_rule=TriggerRule.NONE_FAILED)
    released = [start(name) for name in RELEASED[1:]]
    chain(resolved, *trained, refused, *again, export, *released, announce_release())
    chain(trained[-1], export)
