"""How pictures look: colours that colour-blind people tell apart (Okabe and Ito), and one form of figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobs.platform.scorecard import CHAMPION, MODEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
GREY = "#9A9A9A"
_MARKERS = "osD^vPX"
_OF_RANKINGS = {MODEL: 0, CHAMPION: 1}
"""Places of rankings that look the same in every picture, whoever stands beside them."""


def panels(rows: int, columns: int = 1, *, height: float = 2.8, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure and its axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9 if columns == 1 else 11, 1.2 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex)
    return figure, list(axes.flat)


def of_ranking(name: str, names: list[str]) -> dict[str, Any]:
    """Colour and marker of a ranking among `names`; the day's model and the champion have their own."""
    others = [other for other in names if other not in _OF_RANKINGS]
    place = _OF_RANKINGS[name] if name in _OF_RANKINGS else len(_OF_RANKINGS) + others.index(name)
    return {"color": COLOURS[place % len(COLOURS)], "marker": _MARKERS[place % len(_MARKERS)], "label": name}


def legend_above(axis: Axes, columns: int) -> None:
    """A legend outside of the data, between the title and the plot."""
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns,
        frameon=False,
        fontsize=9,
        columnspacing=1.3,
        handlelength=1.6,
    )
