"""Pictures that jobs leave in MLflow: matplotlib figures of what the caller has at hand; nothing is read or written."""

from jobs.platform.plots.codebook import drift, usage
from jobs.platform.plots.inputs import input_drift
from jobs.platform.plots.interests import interest_map
from jobs.platform.plots.quality import coverage_by_popularity, recall_by_history
from jobs.platform.plots.training import loss_curves
from jobs.platform.plots.trend import trend

__all__ = [
    "coverage_by_popularity",
    "drift",
    "input_drift",
    "interest_map",
    "loss_curves",
    "recall_by_history",
    "trend",
    "usage",
]
