"""Pictures of the codebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.platform.plots.style import COLOURS, legend_above, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drift(by_day: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Cosine and neighbour recall of arrivals and of the base pool by day; a line marks each fit.

    Parameters
    ----------
    by_day : mapping
        Day → what fit_codebook measured: ``action`` and figures such as ``arrivals_cosine``; those that were not
        measured are missing.
    """
    figure, axes = panels(2)
    for axis, name, title in zip(
        axes, ("cosine", "neighbour_recall"), ("mean cosine", "ten nearest neighbours kept"), strict=True
    ):
        groups = {"base": ("base pool", "s--"), "arrivals": ("arrivals since the last fit", "o-")}
        for (group, (label, style)), colour in zip(groups.items(), COLOURS, strict=False):
            values = [facts.get(f"{group}_{name}", np.nan) for facts in by_day.values()]
            axis.plot(range(len(by_day)), values, style, color=colour, label=label, markersize=4)
        if not any(f"{group}_{name}" in facts for group in groups for facts in by_day.values()):
            axis.set_yticks([])
            axis.text(0.5, 0.5, "not measured on the day of a new book", ha="center", transform=axis.transAxes)
        for place, facts in enumerate(by_day.values()):
            if facts["action"] != "kept":
                axis.axvline(place, color="grey", linewidth=0.8)
                axis.annotate(facts["action"], (place, 0.02), xycoords=("data", "axes fraction"), rotation=90)
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
        step = max(1, len(by_day) // 12)
        axis.set_xticks(range(0, len(by_day), step), list(by_day)[::step], rotation=30, ha="right")
        axis.tick_params(labelbottom=axis is axes[-1])
    figure.suptitle("Codebook: how faithfully codes stand for items")
    legend_above(axes[0], 2)
    return figure


def usage(counts: npt.NDArray[np.integer]) -> Figure:
    """Items by entry of each layer, entries sorted by use, one picture a generation.

    Parameters
    ----------
    counts : integer array of shape (G, L, k)
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    figure, axes = panels(len(counts))
    layer_colours = ScalarMappable(Normalize(1, max(counts.shape[1], 2)), colormaps["viridis"])
    for generation, (axis, layers) in enumerate(zip(axes, counts, strict=True)):
        colours = layer_colours.to_rgba(np.arange(1, len(layers) + 1))
        for items, colour in zip(layers, colours, strict=True):
            axis.plot(np.sort(items)[::-1], color=colour, linewidth=1)
        axis.set_yscale("symlog")
        axis.set_ylabel("items")
        axis.set_title(f"Generation {generation}: {np.mean(layers > 0):.1%} of its entries in use")
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("entries of a layer, the most used first")
    figure.colorbar(layer_colours, ax=axes, label="layer", ticks=range(1, counts.shape[1] + 1), pad=0.01)
    return figure
