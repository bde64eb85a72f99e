"""The picture of a backfill: what each day cost, by groups of tasks, above its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.platform.plots.style import COLOURS, GREY, legend_above, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPS = {
    "input": ("check_inputs",),
    "histories": ("update_histories",),
    "training": ("train_encoder", "train_item_space", "train_recommender"),
    "embedding and codes": ("embed_catalog", "fit_codebook", "encode_items"),
    "evaluation": ("evaluate", "choose_model"),
    "release": ("export_interests", "build_index", "publish"),
}
BETWEEN = "Airflow, between the jobs"
_LABELS = 10  # days that are named


def seconds_by_group(day: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a day by group of tasks, those of the group champion among them; they add up to those of the day.

    Parameters
    ----------
    day : mapping
        A row of the results: ``seconds``, and ``tasks`` with the seconds of each.
    """
    of_jobs = {
        group: sum(seconds for task, seconds in day["tasks"].items() if task.rpartition(".")[2] in jobs)
        for group, jobs in GROUPS.items()
    }
    return of_jobs | {BETWEEN: max(day["seconds"] - sum(of_jobs.values()), 0.0)}


def cost_a_day(days: Sequence[Mapping[str, Any]]) -> Figure:
    """Seconds of each day by group of tasks; days on which models were trained have a mark.

    Parameters
    ----------
    days : sequence of mapping
        Rows of the results, oldest first.
    """
    figure, (cost, size) = panels(2, height=3.0, sharex=True)
    places = np.arange(len(days))
    below = np.zeros(len(days))
    colours = (*COLOURS[: len(GROUPS)], GREY)
    split = [seconds_by_group(day) for day in days]
    for group, colour in zip((*GROUPS, BETWEEN), colours, strict=True):
        seconds = np.array([groups[group] for groups in split])
        cost.bar(places, seconds, bottom=below, color=colour, label=group, width=0.75)
        below += seconds
    for place, day in enumerate(days):
        if day["trained"]:
            cost.annotate("trained", (place, below[place]), (0, 3), textcoords="offset points", ha="center", fontsize=8)
    cost.set_ylim(0, 1.1 * below.max())
    cost.set_ylabel("seconds")
    cost.grid(axis="y", alpha=0.3)
    legend_above(cost, 4)
    size.bar(places, [day["events"] for day in days], color=COLOURS[0], width=0.75)
    size.yaxis.set_major_formatter("{x:,.6g}")
    size.set_ylabel("events of the day")
    size.grid(axis="y", alpha=0.3)
    step = -(-len(days) // _LABELS)
    size.set_xticks(places[::step], [day["ds"] for day in days][::step], rotation=30, ha="right", fontsize=8)
    figure.suptitle(f"A backfill of {len(days)} days; the first takes the {days[0]['taken']:,} events up to it, too")
    return figure
