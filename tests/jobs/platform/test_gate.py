from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.platform.errors import JobError
from jobs.platform.gate import Verdict, judge_model
from jobs.platform.profile import GateConfig

GATE = GateConfig()


def evaluation(model: float = 0.3, champion: float | None = None, high: float = 0.01, **facts: Any) -> dict[str, Any]:
    """An evaluation of these recalls; `high` is the upper end of the difference to the champion."""
    recalls = {"HyMiRec": model, "popularity": 0.1} | ({} if champion is None else {"champion": champion})
    rows = [{"name": name, "recall@50": {"mean": mean}, "coverage@50": 0.4} for name, mean in recalls.items()]
    cohort = {"cohort": "sparse users", "metric": "recall@50", "users": 50, "HyMiRec": model, "champion": champion}
    cohorts = [] if champion is None else [cohort | {"difference": {"mean": 0, "low": -0.1, "high": high}}]
    about: dict[str, Any] = {"rows": rows, "pairwise_interest_cosine": 0.9}
    about["champion"] = {"release": "r", "same_model": champion is None, "cohorts": cohorts}
    return about | facts


def names(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.holds]


@pytest.mark.parametrize(
    ("model", "champion", "high", "holds"),
    [
        (0.300, 0.300, 0.01, True),
        (0.292, 0.300, -0.001, True),  # a clear loss within the tolerance
        (0.290, 0.300, -0.001, False),  # a clear loss beyond it
        (0.200, 0.300, 0.001, True),  # beyond it, but nobody can tell
        (0.400, 0.300, 0.2, True),
    ],
)
def test_a_loss_beside_the_champion_counts_when_it_is_large_and_clear(
    model: float, champion: float, high: float, holds: bool
) -> None:
    verdict = judge_model(evaluation(model, champion, high), GATE)
    assert names(verdict) == ([] if holds else ["recall@50 sparse users"])
    assert verdict.passed is holds


@pytest.mark.parametrize(
    ("about", "failed"),
    [
        (evaluation(0.09), ["recall@50"]),
        (evaluation(pairwise_interest_cosine=0.996), ["pairwise interest cosine"]),
        (evaluation(pairwise_interest_cosine=0.995), []),
    ],
)
def test_absolute_thresholds(about: dict[str, Any], failed: list[str]) -> None:
    assert names(judge_model(about, GATE)) == failed


@pytest.mark.parametrize(("rival", "holds"), [(0.8, True), (0.9, False)])
def test_coverage_is_compared_with_the_champions(rival: float, holds: bool) -> None:
    about = evaluation(0.3, 0.3)
    about["rows"][-1]["coverage@50"] = rival
    assert names(judge_model(about, GATE)) == ([] if holds else ["coverage@50"])


def test_an_evaluation_without_a_ranking_is_refused() -> None:
    about = evaluation()
    about["rows"] = about["rows"][:1]
    with pytest.raises(JobError, match=r"evaluation.json: seen rows HyMiRec; allowed: popularity among them"):
        judge_model(about, GATE)


def test_a_verdict_says_what_was_seen_and_what_is_allowed() -> None:
    verdict = judge_model(evaluation(0.29, 0.3, -0.001), GATE)
    allowed = "at least 0.2910, or a difference that is not clear (50 users, up to -0.0010)"
    assert verdict.reasons == f"recall@50 sparse users 0.2900 is not {allowed}"
    assert str(verdict).startswith("gate: REFUSED") and "NO  at least 0.2910" in str(verdict)
    assert json.loads(verdict.json())["checks"][0]["name"] == "recall@50"
    assert verdict.metrics()["gate_recall_at_50_sparse_users"] == 0.29
