"""What the events of assets say; tests/integration has real ones."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from dags import assets


def announce(refresh: dict[str, str]) -> dict[str, Any]:
    """Run the task, and return what its event says."""
    from dags.hymirec_refresh import dag

    events: Any = defaultdict(SimpleNamespace)
    ti = SimpleNamespace(xcom_pull=lambda task_ids: {"resolve": refresh}[task_ids])
    dag.get_task("announce_release").python_callable(ti=ti, outlet_events=events)
    return dict(events[assets.RELEASE].extra)


def switched(folder: Path, release: str, refresh: str) -> None:
    """Leave what a switch to a release leaves."""
    records = folder / "releases" / "switches"
    records.mkdir(parents=True)
    (folder / "releases" / "CURRENT").write_text(f"{release}\n")
    (records / f"20171203T060000.000000Z-{release}.json").write_text(json.dumps({"refresh": refresh}))


def test_other_dags_name_them_by_name_alone() -> None:
    for asset in (assets.ITEMS, assets.HISTORIES, assets.INTERESTS, assets.RELEASE):
        assert Asset(asset.name).uri == asset.uri


def test_a_release_is_announced_with_its_id(tmp_path: Path) -> None:
    refresh = {"warehouse": str(tmp_path), "ds": "2017-12-03", "refresh_id": "r", "retrain": "never"}
    switched(tmp_path, "2017-12-03-0123abcd", "r")
    assert announce(refresh) == {
        "warehouse": str(tmp_path),
        "ds": "2017-12-03",
        "refresh_id": "r",
        "release": "2017-12-03-0123abcd",
    }


def test_a_rollback_announces_the_release_it_went_to(tmp_path: Path) -> None:
    switched(tmp_path, "2017-12-03-0123abcd", "r")
    said = announce({"warehouse": str(tmp_path), "refresh_id": "r", "reason": "clicks fell"})
    assert (said["ds"], said["release"]) == ("2017-12-03", "2017-12-03-0123abcd")


@pytest.mark.parametrize("release", ["2017-12-03-0123abcd", "2017-12-04-0123abcd", None])
def test_nobody_is_woken_for_a_release_that_another_run_switched_to(tmp_path: Path, release: str | None) -> None:
    if release is not None:
        switched(tmp_path, release, "another")
    with pytest.raises(AirflowSkipException, match=f"the current release is {release}; this run did not switch to it"):
        announce({"warehouse": str(tmp_path), "ds": "2017-12-03", "refresh_id": "r"})
