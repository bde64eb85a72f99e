"""compare_releases on releases that are built by the real jobs, and on one that differs from its parent as planned."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import compare_releases
from jobs.platform import cli, releases
from jobs.platform.comparison import compare
from jobs.platform.manifest import ReleaseError
from jobs.platform.names import bucket_of
from jobs.platform.release_draft import new_draft
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests import published_days
from tests.small_day import write_models
from tests.small_release import publish_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NEXT = "2020-03-21"
TURNED, SHUFFLED, LEFT, CAME = "user-005", "user-003", "user-007", "[b]new[/b]"
FRESH = "item-fresh"
N = 50


def change_interests(folder: Path, buckets: int) -> None:
    """Turn one user's interests round, put those of another in another order, and replace a third user."""
    rows = [row for path in sorted(folder.rglob("*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]
    schema = pq.read_schema(next(folder.rglob("*.parquet")))
    for row in rows:
        k = len(row["weights"])
        interests = np.array(row["interests"], np.float16).reshape(k, -1)
        if row["user_id"] == TURNED:
            row["interests"] = (-interests).ravel()
        elif row["user_id"] == SHUFFLED:
            row["interests"], row["weights"] = interests[::-1].ravel(), row["weights"][::-1]
        elif row["user_id"] == LEFT:
            row["user_id"] = CAME
    shutil.rmtree(folder)
    for bucket in {bucket_of(row["user_id"], buckets) for row in rows}:
        inside = sorted(
            (r for r in rows if bucket_of(r["user_id"], buckets) == bucket), key=lambda r: str(r["user_id"])
        )
        (folder / bucket).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(inside, schema), folder / bucket / "part-00000.parquet")


def rename(path: Path, column: str, name: Callable[[str], str]) -> None:
    """Give the ids in a column other names."""
    table = pq.ParquetFile(path).read()
    ids = pa.array([name(given) for given in table[column].to_pylist()], pa.string())
    pq.write_table(table.set_column(table.column_names.index(column), column, ids), path)


def after(a: Release, ds: str, change: Callable[[Path], None]) -> Release:
    """A release of day `ds` that follows `a` and differs from it by `change`."""
    with new_draft(a.warehouse) as draft:
        shutil.copytree(a.local(), draft.folder, dirs_exist_ok=True)
        (draft.folder / "manifest.json").unlink()
        change(draft.folder)
        facts = {name: a.manifest[name] for name in a.manifest.keys() - {"format", "ds", "parent", "files", "id"}}
        return draft.seal(ds, a.id, facts)


def popular(a: Release) -> str:
    """The item of most people's lists, but not of everybody's."""
    ids, counts = np.unique([item for items in lists(a).values() for item in items], return_counts=True)
    return str(ids[np.where(counts < 40, counts, 0).argmax()])


def lists(release: Release) -> dict[str, list[str]]:
    users = release.table("interests", ["user_id"])["user_id"].to_pylist()
    found = release.recommend_batch(users, N)
    return {user: [place.item_id for place in places] for user, places in zip(users, found, strict=True)}


@pytest.fixture(scope="module")
def pair(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    """A real release, and the current one after it: a common item has another id, and interests have changed."""
    a = publish_day(spark, tmp_path_factory.mktemp("compare"))
    common = popular(a)

    def change(folder: Path) -> None:
        change_interests(folder / "interests", a.manifest["retrieval"]["buckets"])
        rename(folder / "items" / "part-00000.parquet", "item_id", lambda item: FRESH if item == common else item)

    b = after(a, NEXT, change)
    releases.switch(b)
    return a, b


def run(wh: Warehouse, *options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run(compare_releases.main, ["--warehouse", wh.uri, *options])
    return int(ended.value.code or 0)


def test_sizes_count_ids(pair: tuple[Release, Release]) -> None:
    found = compare(*pair, users=200, n=N)
    assert (found.items.a, found.items.b, found.items.added, found.items.gone) == (300, 300, 1, 1)
    assert (found.users.kept, found.users.added, found.users.gone) == (39, 1, 1)


def test_each_persons_change_is_the_planned_one(pair: tuple[Release, Release]) -> None:
    a, b = pair
    people = compare(a, b, users=200, n=N).people
    assert people is not None and people.cosine is not None
    old, new = lists(a), lists(b)
    assert people.user_ids == sorted(old.keys() - {LEFT})
    renamed = popular(a)
    touched = 0
    for place, user in enumerate(people.user_ids):
        assert people.overlap[place] == pytest.approx(len({*old[user]} & {*new[user]}) / N)
        assert people.new_items[place] == pytest.approx((FRESH in new[user]) / N)
        if user != TURNED:
            lost = int(renamed in old[user])
            touched += lost
            assert people.overlap[place] == pytest.approx(1 - lost / N)
            assert people.cosine[place] == pytest.approx(1, abs=1e-3)
    assert 0 < touched < 39
    most = people.most_changed(5)
    assert people.user_ids[most[0]] == TURNED and people.overlap[most[0]] < 0.5
    assert people.cosine[most[0]] < 0.9


def test_a_smaller_sample_is_the_same_each_time_and_of_both_releases(pair: tuple[Release, Release]) -> None:
    a, b = pair
    few, again, turned = (compare(*sides, users=10, n=5).people for sides in (pair, pair, (b, a)))
    assert few is not None and again is not None and turned is not None
    assert few.user_ids == again.user_ids == turned.user_ids and len(few.user_ids) == 10
    np.testing.assert_array_equal(few.overlap, again.overlap)
    np.testing.assert_array_equal(few.overlap, turned.overlap)


def test_by_default_the_current_release_is_compared_with_its_parent(
    pair: tuple[Release, Release], capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = pair
    assert run(b.warehouse) == 0
    out = capsys.readouterr().out
    assert f"from release {a.id} (A) to {b.id} (B)" in out and "…" not in out, "a file has room for all columns"
    assert "39 of the 39 users in both" in out and "cosine of matched interests" in out and TURNED in out
    assert "differs" not in out, "the successor has the models of its parent"
    assert run(b.warehouse, "--a", a.id, "--b", b.id, "--users", "7", "-n", "10") == 0
    assert "7 of the 39 users in both: their first 10 items" in capsys.readouterr().out


def test_ids_are_shown_as_they_are(pair: tuple[Release, Release], capsys: pytest.CaptureFixture[str]) -> None:
    _, b = pair
    stranger = compare(b, b, users=200, n=N)
    assert stranger.people is not None
    cli.console().print(compare_releases.most_changed(stranger.people, [stranger.people.user_ids.index(CAME)]))
    assert CAME in capsys.readouterr().out


def test_nobody_in_both_is_said(pair: tuple[Release, Release], capsys: pytest.CaptureFixture[str]) -> None:
    def change(folder: Path) -> None:
        for path in (folder / "interests").rglob("*.parquet"):
            rename(path, "user_id", lambda user: f"other-{user}")

    strangers = after(pair[0], "2020-03-22", change)
    try:
        assert run(strangers.warehouse, "--b", strangers.id) == 0
        assert "no user is in both releases" in capsys.readouterr().out
    finally:
        shutil.rmtree(strangers.local())


def test_figures_of_the_same_users_are_shown_where_a_was_the_champion(
    pair: tuple[Release, Release], capsys: pytest.CaptureFixture[str]
) -> None:
    a, _ = pair
    found = compare(*pair, users=5, n=5)
    first, second = found.evaluations
    cli.console().print(compare_releases.evaluation(found))
    assert "A's model" not in capsys.readouterr().out
    difference = {"mean": 0.0504, "low": -0.01, "high": 0.09}
    cohorts = [{"cohort": "all users", "metric": "recall@50", "difference": difference}]
    rival = {
        **second["rows"][0],
        "name": "champion",
        "recall@50": {"mean": second["rows"][0]["recall@50"]["mean"] - 0.0504},
    }
    champion = {"release": a.id, "same_model": False, "cohorts": cohorts}
    judged = {**second, "rows": [*second["rows"], rival], "champion": champion}
    cli.console().print(compare_releases.evaluation(dataclasses.replace(found, evaluations=(first, judged))))
    out = capsys.readouterr().out
    assert "A's model, B's users" in out and "+0.050 (-0.010 to +0.090)" in out


def test_what_cannot_be_compared_says_what_can(pair: tuple[Release, Release], tmp_path: Path) -> None:
    a, b = pair
    wh = a.warehouse
    with pytest.raises(
        ReleaseError, match=f"release {a.id} has no release before it; allowed with A=ID or --a: {b.id}"
    ):
        compare_releases.find(wh, None, a.id)
    with pytest.raises(ReleaseError, match=f"a: seen {b.id}, which is b too, .*; allowed with A=ID or --a: {a.id}"):
        compare_releases.find(wh, b.id, None)
    with pytest.raises(ReleaseError, match="release 2020-01-01-00000000: seen no manifest; allowed: a published"):
        compare_releases.find(wh, "2020-01-01-00000000", None)
    with pytest.raises(ReleaseError, match=r"release id: seen '\.\./x'; allowed: a day and 8 hex digits"):
        compare_releases.find(wh, None, "../x")
    alone = Warehouse(str(shutil.copytree(wh.uri, tmp_path / "alone")))
    shutil.rmtree(Path(alone.uri) / "releases" / a.id)
    with pytest.raises(ReleaseError, match=rf"any more \({a.id} was removed\); allowed .*: none, it is the only one"):
        compare_releases.find(alone, None, None)


def test_two_published_days_with_models_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    wh = Warehouse(str(tmp_path / "warehouse"))
    for value, day in enumerate((published_days.DAY, published_days.NEXT)):
        write_models(wh, day, value=1.0 + value)
        published_days.write_day(wh, day, users=40 + value, model=0.3 + value / 100)
        assert published_days.publish(wh, tmp_path, day) == 0
    capsys.readouterr()
    assert run(wh) == 0
    lines = [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]
    told = {
        name: line
        for name in ("encoder", "item_space", "recommender", "merge", "items", "users")
        for line in lines
        if line.startswith(f"{name} ")
    }
    assert [told[name].split()[-1] for name in ("encoder", "item_space", "recommender", "merge")] == [
        "differs",
        "differs",
        "differs",
        "same",
    ]
    assert (told["items"], told["users"]) == ("items 600 600 600 0 0", "users 40 41 40 1 0")
    assert "Recall@50 0.300 0.310 +0.010" in lines and "NDCG@10 – – –" in lines
    assert any(line.startswith("no cosine of interests: they lie in two item spaces") for line in lines)
    assert "40 of the 40 users in both: their first 50 items, without those they have seen" in lines
