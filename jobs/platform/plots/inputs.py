"""Picture of a day's input beside the days before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.platform.plots.style import COLOURS, GREY, legend_above, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS = 10  # days that are named


def input_drift(days: Mapping[str, Mapping[str, Any]], used: Mapping[str, float]) -> Figure:
    """Events, users and distinct items by day, and how much of what is allowed each figure of the last day uses.

    Parameters
    ----------
    days : mapping
        Day → statistics, see :mod:`jobs.platform.input_statistics`; the last is the day that was compared.
    used : mapping
        Figure → share of what is allowed; beyond 1 is a breach.
    """
    figure, axes = panels(2, height=3.2)
    for (name, label), colour in zip(
        {"rows": "events", "users": "users", "items": "distinct items"}.items(), COLOURS, strict=False
    ):
        values = [statistics[name] for statistics in days.values()]
        axes[0].plot(range(len(values)), values, "o-", color=colour, label=label, markersize=4)
    axes[0].set_ylim(bottom=0)
    axes[0].set_xlim(-0.5, max(len(days), 2) - 0.5)
    axes[0].yaxis.set_major_formatter("{x:,.6g}")
    axes[0].grid(alpha=0.3)
    step = -(-len(days) // _LABELS)
    named = list(enumerate(days))[::-1][::step]  # the compared day is one of them
    axes[0].set_xticks([place for place, _ in named], [day for _, day in named], rotation=30, ha="right", fontsize=8)
    legend_above(axes[0], 3)
    figures = dict(sorted(used.items(), key=lambda entry: entry[1]))
    colours = [COLOURS[1] if value > 1 else COLOURS[0] for value in figures.values()]
    axes[1].barh(range(len(figures)), [100 * max(value, 0) for value in figures.values()], color=colours)
    axes[1].set_yticks(range(len(figures)), list(figures), fontsize=8)
    axes[1].axvline(100, color=GREY, linewidth=1.5, linestyle="--")
    axes[1].set_xlabel("% of what is allowed: beyond the dashed line is a breach")
    figure.suptitle(f"Input of {list(days)[-1]} beside the days before it")
    return figure
