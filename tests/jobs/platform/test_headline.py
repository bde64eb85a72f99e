"""The run of a refresh, and the days before it, in a real SQLite store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Run

from hymirec_model.config import RecommenderConfig
from jobs.platform import headline, tracking, trend
from jobs.platform.gate import Check, Verdict
from jobs.platform.profile import Profile
from jobs.platform.warehouse import Warehouse
from tests import tiny_release

DAY, NEXT = "2020-03-20", "2020-03-21"
PASSED = Verdict((Check("recall@50", 0.3, "at least 0.2000", True),))
REFUSED = Verdict((Check("users", 36.0, "at least 38.0000", False),))
INTERVAL = {"mean": 0.3, "low": 0.2, "high": 0.4}
EVALUATION = {
    "users": 40,
    "items": 600,
    "rows": [
        {"name": "HyMiRec", "recall@50": INTERVAL, "ndcg@10": INTERVAL, "coverage@50": 0.5},
        {"name": "popularity", "recall@50": INTERVAL | {"mean": 0.2}},
    ],
}


@pytest.fixture(scope="module")
def wh(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return Warehouse(str(tmp_path_factory.mktemp("headline")))


@pytest.fixture(autouse=True)
def store(wh: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{Path(wh.uri).parent}/headline.db")


def refreshed(wh: Warehouse, ds: str, refresh_id: str, verdict: Verdict = PASSED, users: int = 41) -> Run:
    release = tiny_release.make(wh, ds) if verdict.passed else None
    state = "CURRENT" if release else "nothing published"
    with tracking.stage("publish", ds=ds, refresh_id=refresh_id) as run:
        headline.begin(run.refresh, wh, Profile(name="small"), refresh_id)
        headline.ended(run.refresh, EVALUATION, verdict, users=users, state=state, release=release)
    return tracking.client_().get_run(run.refresh.run_id)


def test_a_refresh_says_what_came_of_it(wh: Warehouse) -> None:
    run = refreshed(wh, DAY, "scheduled__2020-03-21T00:00:00+00:00")
    assert run.data.metrics.keys() == {
        "recall_at_50", "ndcg_at_10", "coverage_at_50", "popularity_recall_at_50", "evaluated_users", "items", "users",
        "release_megabytes", "seconds/publish",
    }  # fmt: skip
    assert (run.data.metrics["recall_at_50"], run.data.metrics["users"]) == (0.3, 41)
    assert run.data.params.keys() == set(headline.SETTINGS)
    assert run.data.params["recommender.interests"] == str(RecommenderConfig().interests)
    tags = run.data.tags
    assert tags["hymirec.release"].startswith(DAY) and tags["hymirec.gate"] == "passed"
    assert (tags["hymirec.warehouse"], tags["hymirec.profile"]) == (wh.uri, "small")
    assert tags["hymirec.trigger"] == "Airflow, scheduled"
    assert tags["mlflow.note.content"].startswith(f"**Release `{tags['hymirec.release']}`: CURRENT.**\n\nGate passed.")
    assert tags["mlflow.source.git.commit"] == tracking.git_commit()


def test_a_refusal_says_why_and_has_no_release(wh: Warehouse) -> None:
    run = refreshed(wh, DAY, "refused", REFUSED)
    assert run.data.tags["hymirec.gate"] == "refused" and "hymirec.release" not in run.data.tags
    note = run.data.tags["mlflow.note.content"]
    assert "No release: nothing published." in note and "users 36.0000 is not at least 38.0000" in note
    assert run.data.tags["hymirec.trigger"] == "by hand, job by job"
    assert "release_megabytes" not in run.data.metrics


def test_the_champion_beside_the_model_is_told(wh: Warehouse) -> None:
    rows = [*EVALUATION["rows"], {"name": "champion", "recall@50": INTERVAL | {"mean": 0.25}}]  # type: ignore[misc]
    with tracking.stage("evaluate", ds=DAY, refresh_id="champion") as run:
        headline.evaluated(run.refresh, EVALUATION | {"rows": rows})
    assert tracking.client_().get_run(run.refresh.run_id).data.metrics["champion_recall_at_50"] == 0.25


def test_other_settings_of_a_later_attempt_are_named(wh: Warehouse) -> None:
    first = Profile(name="small")
    other = replace(first, recommender=replace(first.recommender, interests=2))
    with tracking.stage("check_inputs", ds=DAY, refresh_id="attempts") as run:
        for profile in (first, first, other):
            headline.begin(run.refresh, wh, profile, "attempts")
    data = tracking.client_().get_run(run.refresh.run_id).data
    assert data.params["recommender.interests"] == str(first.recommender.interests)
    assert data.tags["hymirec.changed_params"] == f"recommender.interests {first.recommender.interests} -> 2"


@pytest.mark.parametrize("page", [1, 500])
def test_trend_has_released_days_of_this_warehouse_up_to_one(
    page: int, wh: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trend, "_PAGE", page)
    for number, ds in enumerate((NEXT, "2020-03-19", DAY)):
        refreshed(wh, ds, f"day-{number}", users=number)
    refreshed(wh, DAY, "again", users=9)
    refreshed(wh, "2020-03-18", "no", REFUSED)
    refreshed(Warehouse(str(tmp_path)), "2020-03-17", "elsewhere")
    assert {ds: facts["users"] for ds, facts in trend.published_days(wh, DAY).items()} == {"2020-03-19": 1, DAY: 9}
    assert list(trend.published_days(wh, NEXT)) == ["2020-03-19", DAY, NEXT]
    assert trend.published_days(wh, "2020-03-01") == {}
    monkeypatch.setattr(trend, "DAYS", 2)
    assert list(trend.published_days(wh, NEXT)) == [DAY, NEXT]
