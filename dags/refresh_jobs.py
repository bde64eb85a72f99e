"""The jobs of ``hymirec_refresh``: how each is started, what it does, and what to do when it fails."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import NamedTuple

from airflow.sdk import Asset

from dags.assets import HISTORIES, INTERESTS, ITEMS
from dags.launch import JobOperator, SparkJobOperator

# A pool that is not there keeps its tasks waiting for ever: where none is named, it is the one that Airflow always has.
SPARK_POOL = os.environ.get("HYMIREC_SPARK_POOL") or "default_pool"
TRAINING_POOL = os.environ.get("HYMIREC_TRAINING_POOL") or "default_pool"


class Job(NamedTuple):
    """A job of the chain."""

    name: str
    operator: type[SparkJobOperator | JobOperator]
    timeout: timedelta
    """After how long it counts as stuck."""
    does: str
    when_it_fails: str
    pool: str = "default_pool"
    overrides: tuple[str, ...] = ()
    """Which of launch.OVERRIDES it takes."""
    outlets: tuple[Asset, ...] = ()
    """What other DAGs can wait for."""

    def document(self, *, again: bool) -> str:
        """Return the task's page in Airflow; ``again`` for the task that runs it with the champion's model."""
        how = ", once more with the champion's model" if again else ""
        return (
            f"**Does:** {self.does}{how}.\n\n"
            f"**When it fails:** {self.when_it_fails}. Then clear the task: it can run again at any time.\n\n"
            f"**Options:** `python -m jobs.{self.name} --help`"
        )


JOBS = {
    job.name: job
    for job in (
        Job(
            "check_inputs",
            SparkJobOperator,
            timedelta(hours=2),
            "contract; bad rows to quarantine, a breach or drift stops the run",
            "the error names table, column and what is allowed; bad rows stand in the table quarantine with their "
            "reason; correct the data and import the day again; if a day drifted and is right, `drift: accept`",
            SPARK_POOL,
            overrides=("drift",),
            outlets=(ITEMS,),
        ),
        Job(
            "update_histories",
            SparkJobOperator,
            timedelta(hours=4),
            "the day's events become a layer of the histories",
            "most often a damaged partition, which the error names; run that day again",
            SPARK_POOL,
            outlets=(HISTORIES,),
        ),
        Job(
            "train_encoder",
            JobOperator,
            timedelta(hours=12),
            "stage 1: the content encoder, tuned end to end, when due",
            "look at memory and at the loss in MLflow; `retrain: never` goes on with the model of the day before",
            TRAINING_POOL,
            overrides=("retrain",),
        ),
        Job(
            "embed_catalog",
            SparkJobOperator,
            timedelta(hours=12),
            "states of texts that are new",
            "look at the memory of Spark's workers, each of which loads the encoder",
            SPARK_POOL,
        ),
        Job(
            "train_item_space",
            JobOperator,
            timedelta(hours=12),
            "stage 1: item vectors from states and purchases, tuned when due",
            "look at memory and at the loss in MLflow; `retrain: never` goes on with the model of the day before",
            TRAINING_POOL,
            overrides=("retrain",),
        ),
        Job(
            "fit_codebook",
            JobOperator,
            timedelta(hours=4),
            "the codebook, when due; a new generation of it on drift",
            "look at the report in MLflow; `recode: always` fits a new codebook and codes all items anew",
            TRAINING_POOL,
            overrides=("recode",),
        ),
        Job(
            "encode_items",
            SparkJobOperator,
            timedelta(hours=4),
            "codes of new items; gate: the codebook has not collapsed",
            "after the gate's no look at item_vectors and their training, or run the day with `recode: always`",
            SPARK_POOL,
        ),
        Job(
            "train_recommender",
            JobOperator,
            timedelta(hours=24),
            "stage 2: K interests a user, when due",
            "look at memory and at the loss in MLflow; `retrain: never` goes on with the model of the day before",
            TRAINING_POOL,
            overrides=("retrain",),
        ),
        Job(
            "evaluate",
            JobOperator,
            timedelta(hours=4),
            "held-out days, beside the champion and baselines",
            "the error names what is missing: users need events in the held-out days and before them",
            TRAINING_POOL,
        ),
        Job(
            "choose_model",
            JobOperator,
            timedelta(hours=1),
            "gate: the model trained today, or the champion it was to replace",
            "nothing to go back to passed the gate; read the report of evaluate in MLflow, then `retrain: always` or "
            "other limits in the profile",
        ),
        Job(
            "export_interests",
            SparkJobOperator,
            timedelta(hours=12),
            "interests of users with new events or recoded items; of all after a change of the model",
            "look at the memory of Spark's workers, each of which loads the model",
            SPARK_POOL,
            outlets=(INTERESTS,),
        ),
        Job(
            "build_index",
            JobOperator,
            timedelta(hours=4),
            "ANN index that reaches the recall target",
            "no index type is good enough within its budget: `index.types`, `index.target_recall` in the profile",
        ),
        Job(
            "publish",
            JobOperator,
            timedelta(hours=1),
            "gate, then one atomic switch of `releases/CURRENT`",
            "the gate says which figure is too low; the report of the day shows it beside the release before; "
            "`CURRENT` has stayed",
            overrides=("promote",),
        ),
    )
}

_AROUND = {
    "resolve": "waits until no other run is at work; then: which day, which warehouse, which profile",
    "champion_serves": "after a refusal the tasks of the group champion compute the day with the champion's model; "
    "else they are skipped",
    "announce_release": "tells other DAGs, if the day's release became the current one; else it is skipped",
}
"""What the tasks do that are no jobs."""


def task_table() -> str:
    """Return a row a task in Markdown, in the order in which they run."""
    rows = [("resolve", _AROUND["resolve"], "Python")]
    for job in JOBS.values():
        rows.append((job.name, job.does, "Spark" if job.operator is SparkJobOperator else "training launcher"))
        if job.name == "choose_model":
            rows.append(("champion_serves", _AROUND["champion_serves"], "Python"))
    rows.append(("announce_release", _AROUND["announce_release"], "Python"))
    return "\n".join(
        ["| task | what it does | runs as |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    )
