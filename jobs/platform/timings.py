"""How long the tasks of a published refresh took, as MLflow knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.platform import tracking

if TYPE_CHECKING:
    from mlflow.entities import Run

_RELEASE_TAG = "hymirec.release"


@dataclass(frozen=True, slots=True)
class Timings:
    """Time of one refresh.

    Attributes
    ----------
    tasks : list of (name, seconds)
        The last finished run of each task, in the order they ended.
    total : float or None
        Seconds from the start of the refresh to its end, starts of processes included; None while it runs.
    """

    tasks: list[tuple[str, float]]
    total: float | None


def of_release(release_id: str) -> Timings | None:
    """Time of the refresh that published a release last; None if this MLflow knows none.

    Raises
    ------
    TrackingError
        If MLflow cannot be reached.
    """
    published = _search(_RELEASE_TAG, release_id)
    if not published:
        return None
    return of_refresh(published[-1].data.tags[tracking.REFRESH_TAG])


def of_refresh(refresh_id: str) -> Timings:
    """Time of a refresh so far; empty if this MLflow does not know it.

    Raises
    ------
    TrackingError
        If MLflow cannot be reached.
    """
    seconds: dict[str, float] = {}
    total = None
    for run in _search(tracking.REFRESH_TAG, refresh_id):
        if "seconds" in run.data.metrics and run.info.run_name:
            seconds.pop(run.info.run_name, None)  # a retry counts where it stands
            seconds[run.info.run_name] = run.data.metrics["seconds"]
        elif "mlflow.parentRunId" not in run.data.tags and run.info.end_time:
            total = (run.info.end_time - run.info.start_time) / 1000
    return Timings(list(seconds.items()), total)


def _search(tag: str, value: str) -> list[Run]:
    """Runs with a tag, oldest first."""
    client = tracking.client_()
    query, order = f"tags.`{tag}` = '{value}'", ["attributes.start_time ASC"]
    return list(client.search_runs([tracking.find_experiment(client)], query, max_results=1000, order_by=order))
