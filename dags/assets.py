"""What other DAGs can be scheduled on: ``Asset("hymirec_release")`` and its kin, by name alone.

Each event says in ``extra`` which day, in which warehouse and by which refresh; that of a release its id too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, task
from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ITEMS = Asset("hymirec_items", group="hymirec")
HISTORIES = Asset("hymirec_histories", group="hymirec")
INTERESTS = Asset("hymirec_interests", group="hymirec")
RELEASE = Asset("hymirec_release", group="hymirec")


def tell(context: Mapping[str, Any], outlets: Iterable[Any], refresh: Mapping[str, Any], **more: str) -> None:
    """Say in the events of a task's ``outlets`` what they are about."""
    for outlet in outlets:
        extra = {name: refresh[name] for name in ("warehouse", "ds", "refresh_id")}
        context["outlet_events"][outlet].extra = {**extra, **more}


@task(
    outlets=[RELEASE],
    doc_md="**Does:** an event of the asset `hymirec_release`, for DAGs that are scheduled on it; skipped where the "
    "run made no release the current one.\n\n**When it fails:** the warehouse cannot be read; clear the task.",
)
def announce_release(**context: Any) -> None:
    """Tell which release is current; skipped where another run made it so: nobody is woken for nothing."""
    from jobs.platform import releases, switches
    from jobs.platform.resolver import released_day
    from jobs.platform.warehouse import Warehouse

    refresh = context["ti"].xcom_pull(task_ids="resolve")
    warehouse = Warehouse(refresh["warehouse"])
    current = releases.current_id(warehouse)
    switched = [entry["refresh"] for entry in switches.history(warehouse)[-1:]]
    # A rollback that was cut short after its record is completed by another run: it says so again.
    if "ds" in refresh and switched != [refresh["refresh_id"]]:
        raise AirflowSkipException(f"the current release is {current}; this run did not switch to it")
    tell(context, [RELEASE], {**refresh, "ds": released_day(warehouse)}, release=str(current))
