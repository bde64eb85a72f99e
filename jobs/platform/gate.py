"""The gate: what a model, and then a release, must fulfil before it is published, and the verdict on it.

A model is judged by its evaluation: in itself, beside popularity, and beside the champion on the same users, overall
and by cohort. A release is judged by the day's tables beside the release before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jobs.platform.deletions import deleted_users
from jobs.platform.errors import JobError
from jobs.platform.profile import GateConfig
from jobs.platform.releases import Release
from jobs.platform.scorecard import CHAMPION, MODEL
from jobs.platform.tracked_runs import metric_name
from jobs.platform.warehouse import Partition, Warehouse

POPULARITY, RECALL, COVERAGE = "popularity", "recall@50", "coverage@50"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a verdict."""

    name: str
    seen: float
    allowed: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """All checks of a model or a release."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)

    @property
    def reasons(self) -> str:
        """The checks that do not hold, in one line; empty when all do."""
        return ", ".join(f"{c.name} {c.seen:.4f} is not {c.allowed}" for c in self.checks if not c.holds)

    def __str__(self) -> str:
        lines = [f"gate: {'passed' if self.passed else 'REFUSED'}"]
        lines += [
            f"  {check.name:28s} {check.seen:12.4f}  {'ok' if check.holds else 'NO'}  {check.allowed}"
            for check in self.checks
        ]
        return "\n".join(lines)

    def metrics(self) -> dict[str, float]:
        """What was seen, by names that MLflow takes."""
        return {f"gate_{metric_name(check.name)}": check.seen for check in self.checks}

    def json(self) -> str:
        """The verdict as JSON, the same bytes for the same verdict."""
        about = {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}
        return json.dumps(about, indent=1, sort_keys=True) + "\n"


def read_evaluation(wh: Warehouse, partition: Partition) -> dict[str, Any]:
    """Content of an evaluation.json."""
    evaluation: dict[str, Any] = json.loads((wh.local_copy(partition) / "evaluation.json").read_text())
    return evaluation


def judge_model(evaluation: Mapping[str, Any], gate: GateConfig) -> Verdict:
    """Judge a model by its evaluation.

    Beside the champion a figure fails when its mean is lower by more than ``gate.max_loss_to_champion`` and the
    difference is clear: the paired interval over the same users lies below zero. So a small cohort's noise refuses
    nobody.

    Raises
    ------
    JobError
        If the evaluation lacks a ranking that the gate needs.
    """
    rows = {row["name"]: row for row in evaluation["rows"]}
    for name in (MODEL, POPULARITY):
        if name not in rows:
            raise JobError(f"evaluation.json: seen rows {', '.join(rows)}; allowed: {name} among them; evaluate again")
    rival = CHAMPION if CHAMPION in rows else POPULARITY
    checks = [
        _at_least(
            RECALL,
            rows[MODEL][RECALL]["mean"],
            gate.min_ratio_to_popularity * rows[POPULARITY][RECALL]["mean"],
            f"{gate.min_ratio_to_popularity:g} times that of popularity",
        ),
        _at_least(
            COVERAGE,
            rows[MODEL][COVERAGE],
            gate.min_coverage_ratio * rows[rival][COVERAGE],
            f"{gate.min_coverage_ratio:g} times that of {rival}",
        ),
        _at_most("pairwise interest cosine", evaluation["pairwise_interest_cosine"], gate.max_interest_cosine),
    ]
    champion = evaluation["champion"]
    for row in champion["cohorts"] if champion else ():
        floor, high = (1 - gate.max_loss_to_champion) * row[CHAMPION], row["difference"]["high"]
        allowed = f"at least {floor:.4f}, or a difference that is not clear ({row['users']:,} users, up to {high:+.4f})"
        holds = row[MODEL] >= floor or high >= 0
        checks.append(Check(f"{row['metric']} {row['cohort']}", row[MODEL], allowed, holds))
    return Verdict(tuple(checks))


def judge_release(parts: Mapping[str, Partition], gate: GateConfig, parent: Release | None) -> Verdict:
    """Judge what a release is made of, by table, beside the release before.

    Users of that one who have asked to be deleted do not count: they are not lost, and a refusal would serve them on.
    """
    checks = [
        _at_least("merged index recall", parts["index"].info["merged_recall"], gate.min_index_recall),
        _at_least("code usage", parts["item_codes"].info["usage"], gate.min_code_usage),
    ]
    if parent is not None:
        rows, deleted = parent.manifest["rows"], deleted_users(parent)
        besides = f" besides {deleted:,} who asked to be deleted" if deleted else ""
        for name, table, ratio, before, which in (
            ("users", "interests", gate.min_users_ratio, rows["interests"] - deleted, besides),
            ("items", "item_vectors", gate.min_items_ratio, rows["items"], ""),
        ):
            why = f"{ratio:g} times the {before:,} of release {parent.id}{which}"
            checks.append(_at_least(name, parts[table].rows or 0, ratio * before, why))
    return Verdict(tuple(checks))


def _at_least(name: str, seen: float, required: float, why: str = "") -> Check:
    return Check(name, seen, f"at least {required:.4f}{f', {why}' if why else ''}", seen >= required)


def _at_most(name: str, seen: float, limit: float) -> Check:
    return Check(name, seen, f"at most {limit:.4f}", seen <= limit)
