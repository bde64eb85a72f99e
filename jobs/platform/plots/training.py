"""Pictures of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.platform.plots.style import COLOURS, legend_above, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_curves(
    curves: Mapping[str, Mapping[int, float]], recalls: Mapping[str, tuple[float, float]] | None = None
) -> Figure:
    """Loss of each phase of a training one after the other, and what each changed on windows that it did not see.

    MLflow draws each metric by itself; here the phases stand side by side.

    Parameters
    ----------
    curves : mapping
        Loss by step, counted from 1, of each phase.
    recalls : mapping, optional
        Recall@50 before and after a phase; a phase that lowers it is undone.
    """
    figure, axes = panels(1, 2 if recalls else 1, height=3.2)
    start = 0
    for (name, losses), colour in zip(curves.items(), COLOURS, strict=False):
        steps = [start + step for step in losses]
        axes[0].plot(steps, list(losses.values()), color=colour, label=name, linewidth=1.5)
        if start:
            axes[0].axvline(start + 0.5, color="black", linewidth=0.5, alpha=0.4)
        start += max(losses, default=0)
    axes[0].set_xlabel("step")
    axes[0].set_ylabel("training loss")
    axes[0].grid(alpha=0.3)
    legend_above(axes[0], len(curves))
    for name, (before, after) in (recalls or {}).items():
        colour = COLOURS[list(curves).index(name)]
        verdict = "undone" if after < before else "kept"
        axes[1].plot([0, 1], [before, after], color=colour, marker="o", label=f"{name} ({verdict})")
    if recalls:
        axes[1].set_xticks([0, 1], ["before", "after"])
        axes[1].set_xlim(-0.3, 1.3)
        axes[1].set_ylabel("Recall@50 on unseen windows")
        axes[1].grid(axis="y", alpha=0.3)
        legend_above(axes[1], len(recalls))
    figure.suptitle("Training, phase by phase")
    return figure
