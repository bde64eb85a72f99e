"""Which day a run refreshes."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.platform.errors import MissingPartition, ProfileError
from jobs.platform.resolver import ConfError, next_day, resolve_refresh
from jobs.platform.warehouse import Warehouse

MIDNIGHT = datetime.datetime(2017, 12, 3, tzinfo=datetime.UTC)
NOW = datetime.datetime(2026, 5, 4, 13, 37, 11, tzinfo=datetime.UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for day in ("2017-12-01", "2017-12-03", "2017-12-07"):
        (tmp_path / "events" / f"ds={day}").mkdir(parents=True)
        (tmp_path / "events" / f"ds={day}" / "part-0.parquet").write_bytes(b"x")
    (tmp_path / "events" / "ds=2017-12-08").mkdir()  # no file in it: not a partition
    return tmp_path


def resolve(folder: Path, conf: dict[str, Any], moment: datetime.datetime | None, *, manual: bool = True) -> str:
    params = {"warehouse": str(folder), "profile": "demo", "ds": None, "retrain": None, **conf}
    found = resolve_refresh(params, conf=conf, logical_date=moment, manual=manual, refresh_id="r")
    assert found["warehouse"] == str(folder) and found["refresh_id"] == "r"
    return str(found["ds"])


def release(folder: Path, day: str) -> None:
    (folder / "releases").mkdir(exist_ok=True)
    (folder / "releases" / "CURRENT").write_text(f"{day}-0123abcd\n")


class TestDay:
    def test_conf_wins(self, folder: Path) -> None:
        assert resolve(folder, {"ds": "2017-12-01"}, MIDNIGHT) == "2017-12-01"

    def test_dags_test_and_backfills_name_a_midnight(self, folder: Path) -> None:
        assert resolve(folder, {}, MIDNIGHT) == "2017-12-03"

    def test_a_schedule_names_the_interval_that_ended(self, folder: Path) -> None:
        assert resolve(folder, {}, NOW.replace(hour=3, minute=0, second=0), manual=False) == "2026-05-04"

    def test_the_present_moment_of_a_form_names_no_day(self, folder: Path) -> None:
        assert resolve(folder, {}, NOW) == "2017-12-07"

    def test_other_time_zones_are_turned_into_utc(self, folder: Path) -> None:
        zone = datetime.timezone(datetime.timedelta(hours=2))
        assert resolve(folder, {}, datetime.datetime(2017, 12, 4, 2, tzinfo=zone)) == "2017-12-04"

    def test_without_a_release_the_newest_day(self, folder: Path) -> None:
        assert resolve(folder, {}, None) == "2017-12-07"

    def test_after_a_release_the_next_day_with_events(self, folder: Path) -> None:
        release(folder, "2017-12-03")
        assert resolve(folder, {}, None) == "2017-12-07"
        release(folder, "2017-12-01")
        assert resolve(folder, {}, None) == "2017-12-03"

    def test_nothing_after_the_release(self, folder: Path) -> None:
        release(folder, "2017-12-07")
        with pytest.raises(MissingPartition) as caught:
            next_day(Warehouse(str(folder)))
        assert str(caught.value) == (
            "missing partition events: newest there is ds=2017-12-07; the current release covers ds=2017-12-07; "
            "bring in newer events or name a day with ds"
        )

    def test_empty_warehouse(self, tmp_path: Path) -> None:
        with pytest.raises(MissingPartition, match="the table has no data yet; bring the data in"):
            next_day(Warehouse(str(tmp_path)))


class TestConf:
    @pytest.mark.parametrize(
        ("conf", "message"),
        [
            (
                {"profil": "demo"},
                "seen key 'profil'; allowed: warehouse, profile, ds, retrain, recode, promote, drift; did you mean",
            ),
            ({"ds": "3.12.2017"}, "ds: seen '3.12.2017'; allowed: a day written YYYY-MM-DD"),
            ({"ds": 20171203}, "ds: seen 20171203"),
            ({"retrain": "yes"}, "retrain: seen 'yes'; allowed: auto, always, never"),
            ({"recode": "never"}, "recode: seen 'never'; allowed: auto, always"),
            ({"drift": "ignore"}, "drift: seen 'ignore'; allowed: stop, accept, restart"),
            ({"warehouse": " "}, "warehouse: seen ' '; allowed: a text that is not empty"),
            ({"profile": None}, "profile: seen None"),
        ],
    )
    def test_refused(self, folder: Path, conf: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfError) as caught:
            resolve(folder, conf, None)
        assert message in str(caught.value)

    def test_a_relative_folder_lies_in_the_repository(self, repository: Path) -> None:
        params = {"warehouse": "var/x", "profile": "demo", "ds": "2017-12-03", "retrain": "never", "recode": "always"}
        params |= {"promote": "never", "drift": "accept"}
        found = resolve_refresh(params, conf={}, logical_date=None, manual=True, refresh_id="r")
        assert found == {
            "warehouse": str(repository / "var/x"),
            "ds": "2017-12-03",
            "profile": "demo",
            "refresh_id": "r",
            "retrain": "never",
            "recode": "always",
            "promote": "never",
            "drift": "accept",
        }

    def test_a_relative_profile_lies_in_the_repository(self, folder: Path, repository: Path) -> None:
        params = {"warehouse": str(folder), "profile": "infra/profiles/demo.yaml", "ds": "2017-12-03"}
        found = resolve_refresh(params, conf={}, logical_date=None, manual=True, refresh_id="r")
        assert found["profile"] == str(repository / "infra/profiles/demo.yaml")

    def test_a_slip_in_the_profile_shows_at_once(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("retrian: auto\n")
        with pytest.raises(ProfileError, match=r"unknown key 'retrian' \(did you mean 'retrain'\?\)"):
            resolve(folder, {"profile": str(tmp_path / "mine.yaml")}, MIDNIGHT)

    def test_a_uri_stays(self) -> None:
        params = {"warehouse": "s3a://bucket/x", "profile": "demo", "ds": "2017-12-03"}
        found = resolve_refresh(params, conf={}, logical_date=None, manual=True, refresh_id="r")
        assert found["warehouse"] == "s3a://bucket/x"
