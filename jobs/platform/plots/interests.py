"""Picture of users' interests among the items."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from jobs.platform.interest_map import OTHERS, InterestMap
from jobs.platform.plots.style import COLOURS, GREY, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LETTERS = 24  # of a category's or user's name


def interest_map(shown: InterestMap) -> Figure:
    """Items coloured by category, and on the same plane a panel a user: the history's items and the interests.

    Parameters
    ----------
    shown : InterestMap
    """
    from matplotlib.collections import PathCollection

    figure, axes = panels(*((1, 1) if len(shown.users) < 2 else (2, 2)), height=4.2)
    named = [name for name, _ in Counter(name for name in shown.categories if name != OTHERS).most_common()]
    looks = [(OTHERS, GREY, "other categories" if named else "items")]
    looks += [(name, colour, _plain(name)) for name, colour in zip(named, COLOURS, strict=False)]
    categories = np.array(shown.categories, object)
    low, high = _limits(shown)
    for place, axis in enumerate(axes):
        for name, colour, label in looks:
            x, y = shown.items[categories == name].T
            axis.scatter(x, y, s=7, color=colour, alpha=0.5, linewidths=0, label=label)
        if place < len(shown.users):
            user = shown.users[place]
            x, y = user.history.T
            axis.scatter(x, y, s=12, color="black", linewidths=0, label="items of the user's history", zorder=3)
            x, y = user.interests.T
            axis.scatter(
                x, y, s=70, marker="D", color="white", edgecolors="black", linewidths=1.3, label="interests", zorder=4
            )
            axis.set_title(f"user {_plain(user.user_id)}: {user.n_events:,} events", fontsize=10)
        elif shown.users:
            axis.set_axis_off()
        axis.set_xlim(low[0], high[0])
        axis.set_ylim(low[1], high[1])
        axis.set_xticks([])
        axis.set_yticks([])
    apart = "the categories' means" if shown.by_category else "the items"
    figure.suptitle(
        f"Users' interests among {len(shown.items):,} items that people take\n"
        f"(directions, on the plane along which {apart} differ most)"
    )
    handles, labels = axes[0].get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_alpha(1)
            handle.set_sizes([45])
    return figure


def _plain(name: str) -> str:
    """A name's beginning, in which a dollar begins no formula."""
    return name[:_LETTERS].replace("$", r"\$")


def _limits(shown: InterestMap) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the picture: nearly all items, all interests, and a margin."""
    inside = np.quantile(shown.items, [0.002, 0.998], axis=0)
    points = np.concatenate([inside, *(user.interests for user in shown.users)])
    low, high = points.min(0), points.max(0)
    margin = np.maximum(0.05 * (high - low), 0.01)
    return low - margin, high + margin
