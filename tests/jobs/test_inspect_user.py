"""inspect_user and summarize on a release that is built by the real jobs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from jobs.inspect_user import main as inspect_user
from jobs.platform import cli, explain
from jobs.platform.errors import JobError
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from jobs.summarize import main as summarize
from tests.small_model import table, write_histories
from tests.small_release import publish_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def wh(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return publish_day(spark, tmp_path_factory.mktemp("inspect")).warehouse


def test_explanation_tells_what_the_tables_hold(wh: Warehouse) -> None:
    mine = table(40, 300).to_pylist()[5]
    user = explain.explain(wh, Release.open(wh), "user-005")
    assert user.n_events == mine["n_events"]
    assert [title for _, title in user.recent] == [f"title {i}" for i in mine["item_indices"][::-1][:15]]
    assert len(user.interests) == 3
    shown = [title for nearest in user.interests for _, title in nearest]
    assert len(shown) == len(set(shown)) == 15
    assert len(user.retrieved) == 20
    taken = mine["item_indices"]
    for item in user.retrieved:
        assert item.before == taken.count(int(item.item_id.removeprefix("item-")))


def test_unknown_user_gets_examples(wh: Warehouse) -> None:
    with pytest.raises(JobError, match=r"user: seen 'x'; allowed: one of the 40 users .*such as user-\d{3}, "):
        explain.explain(wh, Release.open(wh), "x")


def test_median_user_has_a_median_history(wh: Warehouse) -> None:
    sizes = dict(zip(*(table(40, 300)[name].to_pylist() for name in ("user_id", "n_events")), strict=True))
    chosen = explain.median_user(Release.open(wh))
    assert sizes[chosen] == sorted(sizes.values())[20]
    assert chosen == explain.median_user(Release.open(wh))


def test_a_title_stands_for_the_interest_that_its_nearest_product_is_nearest_to() -> None:
    titles = ["bread", "milk", "milk", "tea", "beer", *(f"rest {i}" for i in range(9))]
    cosines = np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.1], [0.1, 0.4], [0.2, 0.7], *[[0.0, -0.1]] * 9])
    first, second = explain.nearest_titles(cosines, titles)
    assert first[:2] == [(0.9, "bread"), (0.8, "milk")] and len(first) == explain.NEAREST
    assert second == [(0.7, "beer"), (0.4, "tea")]


def test_one_long_title_takes_the_memory_of_one() -> None:
    titles = [*(f"thing {i}" for i in range(2000)), "x" * 1_000_000]
    tracemalloc.start()
    try:
        explain.nearest_titles(np.random.default_rng(0).normal(size=(2001, 2)), titles)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_names_are_shown_as_they_are() -> None:
    odd = ["Shirt [/red]", "[new] [bold]mug"]
    user = explain.Explained(
        user_id="[b]",
        n_events=1,
        recent=[("2020-01-01", odd[0])],
        interests=[[(0.5, odd[1])]],
        retrieved=[explain.Retrieved(odd[0], "[i]", odd[1], 1, 0.5, 0)],
    )
    console = cli.console()
    with console.capture() as shown:
        console.print(explain.render(user))
    assert all(shown.get().count(name) == 2 for name in odd)
    assert "user [b]:" in shown.get() and "[i]" in shown.get()


def test_inspect_prints_the_user(wh: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.run(inspect_user, ["--warehouse", wh.uri, "user-005"])
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "3 interests" in out and "what would be retrieved" in out
    with pytest.raises(SystemExit) as failed:
        cli.run(inspect_user, ["--warehouse", wh.uri, "--release", "2020-01-01-00000000", "user-005"])
    assert failed.value.code == 2


def test_summary_tells_sizes_quality_times_and_a_user(wh: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.run(summarize, ["--warehouse", wh.uri])
    assert done.value.code == 0
    out = capsys.readouterr().out
    release = Release.open(wh)
    assert "coverage@50" in out and "…" not in out, "a file has room for all columns"
    assert release.id in out and "co-occurrence" in out and explain.median_user(release) in out
    assert "publish" in out.split("time by task")[1].split("interests, each")[0]


def test_summary_without_a_release_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as failed:
        cli.run(summarize, ["--warehouse", str(tmp_path)])
    assert failed.value.code == 2
    assert "seen no current release" in capsys.readouterr().err


def test_histories_of_another_run_are_not_named_by_the_releases_items(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = publish_day(spark, tmp_path)
    rows = table(40, 300)
    moved = pa.array([[item + 1 for item in items] for items in rows["item_indices"].to_pylist()], pa.list_(pa.int32()))
    write_histories(release.warehouse, rows.set_column(rows.column_names.index("item_indices"), "item_indices", moved))
    with pytest.raises(SystemExit) as failed:
        cli.run(inspect_user, ["--warehouse", release.warehouse.uri, "user-005"])
    assert failed.value.code == 2
    assert f"histories/ds={release.ds}: seen others than those of release {release.id}" in capsys.readouterr().err
