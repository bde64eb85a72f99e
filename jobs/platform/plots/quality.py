"""Pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.platform.plots.style import legend_above, of_ranking, panels
from jobs.platform.scorecard import MAIN

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def recall_by_history(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """Recall of every ranking for users with short to long histories, with its intervals.

    Parameters
    ----------
    groups : sequence of mapping
        ``by_history`` of an evaluation.json.
    """
    figure, axes = panels(2, height=2.9, sharex=True)
    names = [row["name"] for row in groups[0]["rows"]] if groups else []
    for axis, metric in zip(axes, MAIN[:2], strict=True):
        for number, name in enumerate(names):
            places = np.arange(len(groups)) + 0.13 * (number - (len(names) - 1) / 2)
            rows = [next(row[metric] for row in group["rows"] if row["name"] == name) for group in groups]
            mean, low, high = (np.array([row[key] for row in rows]) for key in ("mean", "low", "high"))
            spread = np.maximum([mean - low, high - mean], 0)
            look = of_ranking(name, names)
            axis.errorbar(places, mean, spread, linestyle="none", capsize=3, markersize=6, **look)
        axis.set_ylabel(metric.replace("recall", "Recall"))
        axis.set_ylim(bottom=0)
        axis.grid(axis="y", alpha=0.3)
        for edge in range(1, len(groups)):
            axis.axvline(edge - 0.5, color="black", linewidth=0.5, alpha=0.3)
    labels = [f"{group['history'].replace('-', '–')} events\n{group['users']:,} users" for group in groups]
    axes[1].set_xticks(range(len(groups)), labels)
    axes[1].set_xlim(-0.5, max(len(groups), 1) - 0.5)
    axes[1].set_xlabel("length of the history before the held-out days")
    figure.suptitle("Recall by length of history, with 95 % bootstrap intervals over users")
    if names:
        legend_above(axes[0], len(names))
    return figure


def coverage_by_popularity(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """What is recommended of popular and of rare items, by every ranking and by what people took.

    Parameters
    ----------
    groups : sequence of mapping
        See :func:`jobs.platform.popularity.by_popularity`.
    """
    figure, axes = panels(2, height=2.9, sharex=True)
    names = [row["name"] for row in groups[0]["rows"]]
    places = range(len(groups))
    for axis, key in zip(axes, ("places", "coverage"), strict=True):
        for name in names:
            values = [100 * next(row[key] for row in group["rows"] if row["name"] == name) for group in groups]
            axis.plot(places, values, linewidth=1.5, markersize=5, **of_ranking(name, names))
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    taken = [100 * group["taken"] for group in groups]
    axes[0].plot(places, taken, color="black", linestyle="--", linewidth=1.5, label="taken afterwards")
    axes[0].set_ylabel("share of places, %")
    axes[1].set_ylabel("items of the group in\nsomebody's first 50, %")
    axes[1].set_xticks(places, [f"{group['group']}\n{group['items']:,}" for group in groups])
    axes[1].set_xlabel(
        "items by popularity, and how many: each group has a tenth of the events before the held-out days"
    )
    figure.suptitle("Recommended items by popularity: first 50 places of every list")
    legend_above(axes[0], len(names) + 1)
    return figure
