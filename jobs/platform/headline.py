"""What the run of a refresh says at a glance in MLflow: by the same names every day, so that days compare side by side.

check_inputs opens it with tags and settings, evaluate adds how good the model is, and publish what became of the day.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from jobs.platform.gate import POPULARITY, Verdict
from jobs.platform.profile import Profile
from jobs.platform.releases import Release
from jobs.platform.scorecard import CHAMPION, MAIN, MODEL, mean_of, sentence
from jobs.platform.tracked_runs import RefreshRun, metric_name
from jobs.platform.warehouse import Warehouse

WAREHOUSE_TAG, RELEASE_TAG, GATE_TAG = "hymirec.warehouse", "hymirec.release", "hymirec.gate"
QUALITY = (*MAIN, "coverage@50")
SETTINGS = (
    "retrain",
    "retrain_every_days",
    "promote",
    "histories.max_length",
    "encoder.weights",
    "encoder.backbone_layers",
    "item_space.dim",
    "item_space.steps",
    "item_space.half_life_days",
    "codebook.layers",
    "codebook.size",
    "recommender.weights",
    "recommender.backbone_layers",
    "recommender.interests",
    "recommender.history",
    "recommender_training.light_steps",
    "recommender_training.steps",
    "recommender_training.half_life_days",
    "recommender_training.learning_rate",
    "evaluation.holdout_days",
    "evaluation.mask_seen",
    "index.types",
    "index.target_recall",
)
"""Those of a profile that tell two refreshes apart; the stages log all of theirs."""
_NOTE = "mlflow.note.content"  # MLflow shows it as the run's description
_AIRFLOW = ("scheduled", "manual", "backfill", "asset_triggered")  # first words of the ids of its runs


def begin(run: RefreshRun, wh: Warehouse, profile: Profile, refresh_id: str) -> None:
    """Say where, by which profile and by whom a day is refreshed; to be repeated by later jobs, which may run alone."""
    kind = refresh_id.split("__")[0]
    trigger = f"Airflow, {kind.replace('_', ' ')}" if kind in _AIRFLOW else "by hand, job by job"
    run.tags({WAREHOUSE_TAG: wh.uri, "hymirec.profile": profile.name, "hymirec.trigger": trigger})
    run.params({name: attrgetter(name)(profile) for name in SETTINGS})


def evaluated(run: RefreshRun, evaluation: Mapping[str, Any]) -> None:
    """Add the day's figures, and recall@50 of what they stand beside, from the content of an evaluation.json."""
    rows = {row["name"]: row for row in evaluation["rows"]}
    figures = {metric: mean_of(rows[MODEL].get(metric)) for metric in QUALITY}
    figures |= {f"{name} {MAIN[0]}": mean_of(rows[name][MAIN[0]]) for name in (POPULARITY, CHAMPION) if name in rows}
    figures |= {"evaluated users": evaluation["users"], "items": evaluation["items"]}
    run.metrics({metric_name(name): value for name, value in figures.items() if value is not None})


def ended(
    run: RefreshRun,
    evaluation: Mapping[str, Any],
    verdict: Verdict,
    *,
    users: int,
    state: str,
    release: Release | None,
) -> None:
    """Add the verdict, the release and its size, and a description for people.

    Parameters
    ----------
    run : RefreshRun
    evaluation : mapping
        Content of evaluation.json.
    verdict : Verdict
    users : int
        With interests.
    state : str
        Whether the day became the current release; if not, why.
    release : Release or None
        What was made of the day.
    """
    evaluated(run, evaluation)
    sizes: dict[str, float] = {"users": users}
    if release is not None:
        sizes["release_megabytes"] = sum(release.part_bytes().values()) / 1e6
        run.tags({RELEASE_TAG: release.id})
    run.metrics(sizes)
    gate = "passed" if verdict.passed else f"refused: {verdict.reasons}"
    what = f"Release `{release.id}`: {state}." if release else f"No release: {state}."
    note = (
        f"**{what}**",
        f"Gate {gate}.",
        f"{sentence(evaluation)}.",
        "`report.html` and the pictures are among the artifacts; the stages are nested in this run.",
    )
    run.tags({GATE_TAG: "passed" if verdict.passed else "refused", "hymirec.state": state, _NOTE: "\n\n".join(note)})
