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
    "day's release is not the current one, or was not to become it (`promote`).\n\n**When it fails:** the warehouse "
    "cannot be read; clear the task.",
)
def announce_release(**context: Any) -> None:
    """Tell which release is current; skipped where this run cannot have made it so, and nobody is woken for nothing."""
    from jobs.platform import releases
    from jobs.platform.profile import load_profile
    from jobs.platform.resolver import released_day
    from jobs.platform.warehouse import Warehouse

    refresh = context["ti"].xcom_pull(task_ids="resolve")
    warehouse = Warehouse(refresh["warehouse"])
    current, day = releases.current_id(warehouse), released_day(warehouse)
    wanted = refresh.get("ds", day)  # a rollback names no day
    if current is None or day != wanted:
        raise AirflowSkipException(f"the current release is {current}, not one of {wanted}")
    if "ds" in refresh and (promote := refresh["promote"] or load_profile(refresh["profile"]).promote) != "auto":
        raise AirflowSkipException(
            f"the current release is {current}; promote is {promote}, so this run did not switch"
        )
    tell(context, [RELEASE], {**refresh, "ds": day}, release=current)
