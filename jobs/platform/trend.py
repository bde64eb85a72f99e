"""The days before in MLflow: what the runs of earlier refreshes of the same warehouse said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.platform import tracking
from jobs.platform.headline import RELEASE_TAG, WAREHOUSE_TAG
from jobs.platform.warehouse import Warehouse

if TYPE_CHECKING:
    from mlflow.entities import Run

DAYS = 30
_PAGE = 500  # refreshes that are asked for at once


def published_days(wh: Warehouse, ds: str) -> dict[str, dict[str, float]]:
    """Headline metrics of the last days up to ``ds`` that were released, oldest first.

    A day that was released more than once counts as it was last.

    Raises
    ------
    TrackingError
        If MLflow cannot be reached.
    """
    found: dict[str, dict[str, float]] = {}
    for run in _newest_first():
        tags = run.data.tags
        day = tags[tracking.DS_TAG]
        if tags.get(WAREHOUSE_TAG) == wh.uri and RELEASE_TAG in tags and day <= ds and day not in found:
            if len(found) == DAYS:
                break
            found[day] = dict(run.data.metrics)
    return {day: found[day] for day in sorted(found)}


def _newest_first() -> Iterator[Run]:
    """Refreshes of all warehouses: of one day the latest first."""
    client, token = tracking.client_(), None
    while True:
        runs = client.search_runs(
            [tracking.find_experiment(client)],
            f"tags.`{tracking.KIND_TAG}` = 'refresh'",
            max_results=_PAGE,
            order_by=[f"tags.`{tracking.DS_TAG}` DESC", "attributes.start_time DESC"],
            page_token=token,
        )
        yield from runs
        token = runs.token
        if not token:
            return
