"""inspect_user and summarize on a release that is built by the real jobs, Spark apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hymirec_model.config import EvaluationConfig, IndexConfig
from jobs import build_index, publish
from jobs.evaluate import evaluate
from jobs.export_interests import end_of
from jobs.inspect_user import main as inspect_user
from jobs.platform import cli, explain
from jobs.platform.errors import JobError
from jobs.platform.interest_export import BucketExport
from jobs.platform.releases import Release
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Warehouse
from jobs.summarize import main as summarize
from tests.small_day import newest_space_version, profile, write_encoder
from tests.small_model import DAY, table, write_day


@pytest.fixture(scope="module")
def wh(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    folder = tmp_path_factory.mktemp("inspect")
    wh = Warehouse(str(folder / "warehouse"))
    write_encoder(wh, DAY)
    write_day(wh, space_version=newest_space_version(wh, DAY))
    histories, parts = wh.partition("histories", DAY), ModelParts.find(wh, DAY)
    evaluate(wh, DAY, EvaluationConfig(bootstrap=20), histories, parts)
    with wh.write_partition("interests", DAY) as part:
        task = BucketExport(wh.uri, histories, parts, part.path.removeprefix(f"{wh.uri}/"), end_of(DAY))
        done = [task.export(f"bucket={bucket:03d}") for bucket in range(3)]
        part.rows = sum(result.pop("users") for result in done)
        part.info |= done[0] | {"model_version": "m1"}
    build_index.build(wh, DAY, IndexConfig(queries=60, neighbours=20), *build_index.find_inputs(wh, DAY))
    gate = "{min_ratio_to_popularity: 0, min_index_recall: 0.5}"
    options = ["--warehouse", wh.uri, "--ds", DAY, "--profile", profile(folder, gate=gate)]
    with pytest.raises(SystemExit) as done_:
        cli.run(publish.main, options)
    assert done_.value.code == 0
    return wh


def test_explanation_tells_what_the_tables_hold(wh: Warehouse) -> None:
    mine = table(40, 300).to_pylist()[5]
    user = explain.explain(wh, Release.open(wh), "user-005")
    assert user.n_events == mine["n_events"]
    assert [title for _, title in user.recent] == [f"title {i}" for i in mine["item_indices"][::-1][:15]]
    assert len(user.interests) == 3
    shown = [title for nearest in user.interests for _, title in nearest]
    assert len(shown) == len(set(shown)) == 15
    assert len(user.retrieved) == 20
    taken = set(mine["item_indices"])
    assert [before for *_, before in user.retrieved] == [
        int(item_id.removeprefix("item-")) in taken for _, item_id, _, _ in user.retrieved
    ]


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
