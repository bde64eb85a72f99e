"""Which day a run of the DAG refreshes, in which warehouse, with which profile: decided here only.

Scheduled, backfilled, manual and asset-triggered runs all end in the same strings, which the tasks hand
to their jobs as options.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from jobs.platform import releases
from jobs.platform.errors import JobError, MissingPartition
from jobs.platform.local import REPOSITORY
from jobs.platform.names import DRIFT, PROMOTE, RECODE, RETRAIN, is_day
from jobs.platform.profile import is_path, load_profile
from jobs.platform.warehouse import Warehouse

CONF_KEYS = ("warehouse", "profile", "ds", "retrain", "recode", "promote", "drift")


class ConfError(JobError):
    """The conf of a run has an unknown key or a value that is not allowed."""


def resolve_refresh(
    params: Mapping[str, Any],
    *,
    conf: Mapping[str, Any],
    logical_date: datetime.datetime | None,
    manual: bool,
    refresh_id: str,
) -> dict[str, str | None]:
    """Return a run's warehouse, ds, profile, refresh_id, retrain, recode, promote and drift (None: as the profile
    says).

    Parameters
    ----------
    params : mapping
        The run's parameters: the DAG's defaults overlaid with ``conf``.
    conf : mapping
        What the run was triggered with; its keys are checked.
    logical_date : datetime, optional
        The run's logical date; asset-triggered runs have none.
    manual : bool
        Whether a person triggered the run. Airflow's form fills in the present moment as the logical date,
        which names no partition, so only a midnight counts as a day then.
    refresh_id : str
        Name of the refresh in MLflow.

    Raises
    ------
    ConfError
        If a key or a value is not allowed.
    ProfileError
        If the profile cannot be used.
    MissingPartition
        If no day was named and the warehouse has no events for a next one.
    """
    check_conf(params, conf)
    warehouse = absolute_warehouse(params["warehouse"])
    profile = _absolute(params["profile"]) if is_path(params["profile"]) else params["profile"]
    load_profile(profile)  # a slip in it shows now, not in the middle of the night's second task
    ds = params.get("ds") or _day_of(logical_date, manual=manual) or next_day(Warehouse(warehouse))
    return {
        "warehouse": warehouse,
        "ds": ds,
        "profile": profile,
        "refresh_id": refresh_id,
        "retrain": params.get("retrain"),
        "recode": params.get("recode"),
        "promote": params.get("promote"),
        "drift": params.get("drift"),
    }


def check_conf(params: Mapping[str, Any], conf: Mapping[str, Any]) -> None:
    """Raise ConfError for an unknown key of ``conf`` or a bad value in ``params`` (see resolve_refresh)."""
    for key in conf:
        if key not in CONF_KEYS:
            close = get_close_matches(str(key), CONF_KEYS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfError(f"conf: seen key {key!r}; allowed: {', '.join(CONF_KEYS)}{hint}")
    for key in ("warehouse", "profile"):
        value = params.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ConfError(f"conf: {key}: seen {value!r}; allowed: a text that is not empty")
    for key, words in (("retrain", RETRAIN), ("recode", RECODE), ("promote", PROMOTE), ("drift", DRIFT)):
        if params.get(key) not in (None, *words):
            raise ConfError(f"conf: {key}: seen {params[key]!r}; allowed: {', '.join(words)}")
    ds = params.get("ds")
    if ds is not None and not (isinstance(ds, str) and is_day(ds)):
        raise ConfError(f"conf: ds: seen {ds!r}; allowed: a day written YYYY-MM-DD, such as 2017-12-24")


def next_day(warehouse: Warehouse) -> str:
    """Return the oldest day with events after the current release, or the newest day if there is none yet.

    Raises
    ------
    MissingPartition
        If there is no such day.
    """
    days = warehouse.partitions("events")
    newest = days[-1] if days else None
    released = released_day(warehouse)
    if released is not None:
        days = [day for day in days if day > released]
        if not days:
            hint = f"the current release covers ds={released}; bring in newer events or name a day with ds"
            raise MissingPartition("events", "", newest, hint)
        return days[0]
    if newest is None:
        raise MissingPartition("events", "", None, "bring the data in with `python -m jobs.import_events`")
    return newest


def released_day(warehouse: Warehouse) -> str | None:
    """Return the day of the current release, None if nothing was released yet."""
    current = releases.current_id(warehouse)
    return None if current is None else current[: len("2017-12-24")]


def absolute_warehouse(place: str) -> str:
    """A warehouse's URI, or its folder from the root."""
    return place if "://" in place else _absolute(place)


def _absolute(path: str) -> str:
    """A relative path, taken from the repository: it must not depend on where Airflow was started."""
    return str(REPOSITORY / Path(path).expanduser())


def _day_of(moment: datetime.datetime | None, *, manual: bool) -> str | None:
    if moment is None:
        return None
    moment = moment.astimezone(datetime.UTC)
    if manual and moment.time() != datetime.time(0):
        return None
    return moment.date().isoformat()
