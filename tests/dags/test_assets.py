"""What the events of assets say; tests/integration has real ones."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowSkipException

from dags import assets


def announce(refresh: dict[str, Any]) -> dict[str, Any]:
    """Run the task, and return what its event says."""
    from dags.hymirec_refresh import dag

    events: Any = defaultdict(SimpleNamespace)
    ti = SimpleNamespace(xcom_pull=lambda task_ids: {"resolve": refresh}[task_ids])
    dag.get_task("announce_release").python_callable(ti=ti, outlet_events=events)
    return dict(events[assets.RELEASE].extra)


def current(folder: Path, release: str) -> None:
    (folder / "releases").mkdir(exist_ok=True)
    (folder / "releases" / "CURRENT").write_text(f"{release}\n")


def refresh_of(folder: Path, promote: str | None = None, profile: str = "demo") -> dict[str, Any]:
    """What resolve hands on, as far as it matters here."""
    return {"warehouse": str(folder), "ds": "2017-12-03", "refresh_id": "r", "promote": promote, "profile": profile}


def test_other_dags_name_them_by_name_alone() -> None:
    for asset in (assets.ITEMS, assets.HISTORIES, assets.INTERESTS, assets.RELEASE):
        assert Asset(asset.name).uri == asset.uri


def test_a_release_is_announced_with_its_id(tmp_path: Path) -> None:
    current(tmp_path, "2017-12-03-0123abcd")
    assert announce(refresh_of(tmp_path)) == {
        "warehouse": str(tmp_path),
        "ds": "2017-12-03",
        "refresh_id": "r",
        "release": "2017-12-03-0123abcd",
    }


def test_a_rollback_announces_the_release_it_went_to(tmp_path: Path) -> None:
    current(tmp_path, "2017-12-03-0123abcd")
    said = announce({"warehouse": str(tmp_path), "refresh_id": "r", "reason": "clicks fell"})
    assert (said["ds"], said["release"]) == ("2017-12-03", "2017-12-03-0123abcd")


@pytest.mark.parametrize("release", ["2017-12-04-0123abcd", None])
def test_nobody_is_woken_for_a_release_that_is_not_current(tmp_path: Path, release: str | None) -> None:
    if release is not None:
        current(tmp_path, release)
    with pytest.raises(AirflowSkipException, match=f"the current release is {release}, not one of 2017-12-03"):
        announce(refresh_of(tmp_path))


@pytest.mark.parametrize("promote", ["never", "dry-run"])
def test_nobody_is_woken_by_a_run_that_does_not_switch(tmp_path: Path, promote: str) -> None:
    current(tmp_path, "2017-12-03-0123abcd")
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"promote: {promote}\n")
    for refresh in (refresh_of(tmp_path, promote), refresh_of(tmp_path, profile=str(profile))):
        with pytest.raises(AirflowSkipException, match=f"promote is {promote}"):
            announce(refresh)
    assert announce(refresh_of(tmp_path, "auto", str(profile)))["release"] == "2017-12-03-0123abcd"
