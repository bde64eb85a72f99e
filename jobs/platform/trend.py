"""The days before in MLflow: what the runs of earlier refreshes of the same warehouse said."""

from __future__ import annotations

from jobs.platform import tracking
from jobs.platform.headline import RELEASE_TAG, WAREHOUSE_TAG
from jobs.platform.warehouse import Warehouse

DAYS = 30
_SEARCHED = 500  # newest refreshes that are looked at: days may have been run many times, or refused


def published_days(wh: Warehouse, ds: str) -> dict[str, dict[str, float]]:
    """Headline metrics of the last days up to ``ds`` that were released, oldest first.

    A day that was released more than once counts as it was last.

    Raises
    ------
    TrackingError
        If MLflow cannot be reached.
    """
    client = tracking.client_()
    runs = client.search_runs(
        [tracking.find_experiment(client)],
        f"tags.`{tracking.KIND_TAG}` = 'refresh'",
        max_results=_SEARCHED,
        order_by=[f"tags.`{tracking.DS_TAG}` DESC", "attributes.start_time DESC"],
    )
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        tags = run.data.tags
        day = tags[tracking.DS_TAG]
        if tags.get(WAREHOUSE_TAG) == wh.uri and RELEASE_TAG in tags and day <= ds and day not in found:
            found[day] = dict(run.data.metrics)
    return {day: found[day] for day in sorted(found)[-DAYS:]}
