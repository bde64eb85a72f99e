"""Picture of the days up to one."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from jobs.platform.plots.style import COLOURS, GREY
from jobs.platform.tracking import SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SLOWEST = 5  # tasks that are shown by themselves
_LABELS = 7  # days that are named on an axis
_SHARES = {
    "Recall": {"recall_at_200": "@200", "recall_at_50": "@50", "popularity_recall_at_50": "@50 of popularity"},
    "NDCG@10": {"ndcg_at_10": ""},
    "Coverage: share of all items in somebody's first 50": {"coverage_at_50": ""},
}
_SIZES = {
    "Users with interests": {"users": ""},
    "Items": {"items": ""},
    "Size of the release, MB": {"release_megabytes": ""},
}
_TIME = "Minutes by task"


def trend(days: Mapping[str, Mapping[str, float]]) -> Figure:
    """Quality, size and time of one refresh after the other; a day without a release has no point.

    Parameters
    ----------
    days : mapping
        Day → metrics of its refresh's run; those that were not measured are missing.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 11), layout="constrained")
    grid = figure.add_gridspec(4, 2)
    axes = {title: figure.add_subplot(grid[divmod(place, 2)]) for place, title in enumerate((*_SHARES, *_SIZES))}
    axes[_TIME] = figure.add_subplot(grid[3, :])
    first = datetime.date.fromisoformat(min(days))
    places = [(datetime.date.fromisoformat(day) - first).days for day in days]
    for title, metrics in (_SHARES | _SIZES).items():
        _lines(axes[title], places, list(days.values()), metrics)
    for title in _SHARES:
        axes[title].set_ylim(0, 1.08 * axes[title].get_ylim()[1])
    for title in _SIZES:
        axes[title].yaxis.set_major_formatter("{x:,.6g}")
    _minutes(axes[_TIME], places, list(days.values()))
    step = -(-len(places) // _LABELS)
    named = list(zip(places, days, strict=True))[::-1][::step]  # the newest day is one of them
    for title, axis in axes.items():
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(axis="y", alpha=0.3)
        axis.set_xlim(-0.6, max(places) + 0.6)
        axis.set_xticks([place for place, _ in named], [day[5:] for _, day in named], fontsize=8)
    figure.suptitle(f"Released days up to {max(days)}")
    return figure


def _lines(axis: Axes, places: list[int], days: list[Mapping[str, float]], metrics: Mapping[str, str]) -> None:
    for (name, label), colour in zip(metrics.items(), (*COLOURS[:2], GREY), strict=False):
        axis.plot(places, [facts.get(name, np.nan) for facts in days], "o-", color=colour, label=label, markersize=4)
    if len(metrics) > 1:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(metrics), frameon=False, fontsize=8)


def _minutes(axis: Axes, places: list[int], days: list[Mapping[str, float]]) -> None:
    """Time of the slowest tasks and of the rest, one on top of the other."""
    tasks = {name for facts in days for name in facts if name.startswith(SECONDS)}
    longest = {name: max(facts.get(name, 0.0) for facts in days) for name in tasks}
    slowest = sorted(longest, key=lambda name: (-longest[name], name))[:_SLOWEST]
    layers = [(name.removeprefix(SECONDS), colour, [name]) for name, colour in zip(slowest, COLOURS, strict=False)]
    if len(tasks) > len(slowest):
        layers.append(("the others", GREY, sorted(tasks - set(slowest))))
    below = np.zeros(len(days))
    for label, colour, names in layers:
        minutes = np.array([sum(facts.get(name, 0.0) for name in names) / 60 for facts in days])
        axis.bar(places, minutes, bottom=below, color=colour, label=label, width=0.7)
        below += minutes
    if layers:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(layers), frameon=False, fontsize=8)
