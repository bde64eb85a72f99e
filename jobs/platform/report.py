"""The report of a refresh for people: one HTML file that needs nothing from outside, for any screen.

It tells whether the day was published and why, what changed since the release before, how good the model is and for
whom, what ten people would be shown and why, and where the time went.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.platform import explain, timings
from jobs.platform.errors import JobError
from jobs.platform.gate import Verdict
from jobs.platform.releases import Release
from jobs.platform.scorecard import CHAMPION, MAIN, MODEL, NEW_ITEMS, mean_of
from jobs.platform.warehouse import Warehouse

FOLDER = "reports"
PEOPLE = 10
METRICS = (*MAIN, NEW_ITEMS, "coverage@50")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a report tells.

    Attributes
    ----------
    ds : str
    state : str
        Whether the day became the current release; if not, why.
    verdict : Verdict
    evaluation : mapping
        Content of evaluation.json.
    choice : mapping
        Facts of model_choice/ds.
    release, parent : Release or None
        What was made of the day, None after a refusal; and the release before.
    version : str or None
        Number of the release's model in MLflow.
    people : list of Explained
    no_people : str
        Why there are none; empty if there are some.
    tasks : list of (name, seconds)
        Slowest first.
    """

    ds: str
    state: str
    verdict: Verdict
    evaluation: Mapping[str, Any]
    choice: Mapping[str, Any]
    release: Release | None
    parent: Release | None
    version: str | None
    people: list[explain.Explained]
    no_people: str
    tasks: list[tuple[str, float]]


def collect(
    wh: Warehouse,
    ds: str,
    refresh_id: str,
    *,
    state: str,
    verdict: Verdict,
    evaluation: Mapping[str, Any],
    choice: Mapping[str, Any],
    release: Release | None,
    parent: Release | None,
    version: str | None,
) -> Contents:
    """Gather what the caller does not know: people of the release, and the time of the refresh's tasks so far."""
    people: list[explain.Explained] = []
    no_people = "no release was made of the day"
    if release is not None:
        try:
            people = [explain.explain(wh, release, user) for user in explain.spread_users(release, PEOPLE)]
            no_people = "" if people else "the release has no users"
        except JobError as error:  # the histories are gone, or others: no reason to keep a release back
            no_people = str(error)
    tasks = tasks_so_far(refresh_id)
    return Contents(ds, state, verdict, evaluation, choice, release, parent, version, people, no_people, tasks)


def write(wh: Warehouse, html: str, ds: str) -> str:
    """Write the report of a day in place of an earlier one; return where it lies."""
    path = f"{FOLDER}/{ds}.html"
    wh.storage.replace(path, html.encode())
    return f"{wh.uri}/{path}"


def render(contents: Contents) -> str:
    """The report as HTML. Whatever comes from a catalogue or a log is escaped."""
    evaluation = contents.evaluation
    return _page(
        "report.html.j2",
        report=contents,
        changes=changes(contents.release, contents.parent),
        metrics=METRICS,
        quality=quality(evaluation["rows"]),
        lengths=lengths(evaluation["by_history"]),
        cohorts=(evaluation["champion"] or {}).get("cohorts", []),
        model=MODEL,
        champion=CHAMPION,
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """What the page of a day tells whose refresh ended before publish could judge it.

    Attributes
    ----------
    ds, refresh_id, task : str
    error : str
        Last words of the task, with links to where more is told.
    advice : str
        What to do about it; may be empty.
    state : str
        What is served meanwhile.
    tasks : list of (name, seconds)
        Tasks that had ended well, slowest first.
    """

    ds: str
    refresh_id: str
    task: str
    error: str
    advice: str
    state: str
    tasks: list[tuple[str, float]]


def render_failure(failure: Failure) -> str:
    """The page of a failure as HTML. Whatever comes from a job's output is escaped."""
    return _page("failure.html.j2", failure=failure)


def tasks_so_far(refresh_id: str) -> list[tuple[str, float]]:
    """Name and seconds of a refresh's tasks that have ended, slowest first."""
    return sorted(timings.of_refresh(refresh_id).tasks, key=lambda task: -task[1])


def _page(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("jobs.platform", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def changes(release: Release | None, parent: Release | None) -> list[dict[str, str]]:
    """What is different from the release before: one row a fact, with both values and the difference."""
    if release is None or parent is None:
        return []
    now, before = release.manifest, parent.manifest
    rows = []
    for name, key in (("users", "interests"), ("items", "items")):
        a, b = before["rows"][key], now["rows"][key]
        rows.append({"name": name, "before": f"{a:,}", "now": f"{b:,}", "change": f"{b - a:+,}"})
    for name, key in (("codes: cosine", "cosine"), ("codes: entries in use", "usage")):
        a, b = before["codebook"][key], now["codebook"][key]
        rows.append({"name": name, "before": f"{a:.4f}", "now": f"{b:.4f}", "change": f"{b - a:+.4f}"})
    a, b = (sum(about["bytes"] for about in manifest["files"].values()) / 1e6 for manifest in (before, now))
    rows.append({"name": "size in MB", "before": f"{a:.1f}", "now": f"{b:.1f}", "change": f"{b - a:+.1f}"})
    for part, version in now["versions"].items():
        old = before["versions"].get(part, "–")
        change = "the same" if old == version else "new"
        rows.append({"name": part.replace("_", " "), "before": old, "now": version, "change": change})
    return rows


def quality(rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Cells of the table of rankings: text, and the length of a bar as a share of the column's best."""
    best = {metric: max((mean_of(row.get(metric)) or 0.0 for row in rows), default=0.0) or 1.0 for metric in METRICS}
    return [{"name": row["name"], "cells": [_bar(row.get(metric), best[metric]) for metric in METRICS]} for row in rows]


def lengths(groups: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Recall@50 of each ranking by the length of the history."""
    found = []
    for group in groups:
        best = max(mean_of(row[MAIN[0]]) or 0.0 for row in group["rows"]) or 1.0
        cells = [{"name": row["name"], **_bar(row[MAIN[0]], best)} for row in group["rows"]]
        found.append({"history": group["history"], "users": group["users"], "cells": cells})
    return found


def _bar(value: Any, best: float) -> dict[str, Any]:
    mean = mean_of(value)
    if mean is None:
        return {"text": "–", "spread": "", "share": 0.0}
    spread = f"±{(value['high'] - value['low']) / 2:.3f}" if isinstance(value, Mapping) else ""
    return {"text": f"{mean:.3f}", "spread": spread, "share": 100 * mean / best}
