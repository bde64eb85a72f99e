"""The jobs that need no Spark, on a warehouse in an S3-compatible store, beside the same day in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from pyspark.sql import SparkSession

from jobs import (
    build_index,
    choose_model,
    compare_releases,
    evaluate,
    fit_codebook,
    inspect_user,
    publish,
    rollback,
    train_item_space,
    train_recommender,
)
from jobs.platform import cli, releases, switches
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.jobs.test_train_models import ITEMS, bytes_of, small_profile, write_texts, write_user_side
from tests.object_store import ObjectStore
from tests.small_day import profile
from tests.small_model import DAY, write_day
from tests.small_release import publish_day

GATE = "{min_ratio_to_popularity: 0, min_coverage_ratio: 0, max_interest_cosine: 1, min_index_recall: 0.5}"
MADE_THERE = ("evaluation", "index", "model_choice", "releases", "reports")


@pytest.fixture(scope="module")
def local(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Publish a day in a folder."""
    return publish_day(spark, tmp_path_factory.mktemp("local"))


@pytest.fixture
def remote(local: Release, bucket: str) -> Warehouse:
    """Return a warehouse in the store with what comes before evaluate, and interests, which Spark writes."""
    wh = Warehouse(f"s3a://{bucket}/warehouse")
    here = local.warehouse.storage.local
    assert here is not None
    for table in (path for path in here.iterdir() if path.name not in MADE_THERE):
        pafs.copy_files(str(table), wh.storage.path(table.name), pafs.LocalFileSystem(), wh.filesystem)
    return wh


def run(job: object, *options: str) -> int:
    with pytest.raises(SystemExit) as done:
        cli.run(job.main, list(options))  # type: ignore[attr-defined]
    return int(done.value.code or 0)


def refresh(wh: Warehouse, folder: Path, index: str) -> Release:
    settings = profile(folder, gate=GATE, evaluation="{bootstrap: 20}", index=index)
    for job in (evaluate, choose_model, build_index, publish):
        assert run(job, "--warehouse", wh.uri, "--ds", DAY, "--profile", settings) == 0
    return Release.open(wh, full=True)


def test_a_day_is_published_served_and_left_again(
    local: Release, remote: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = "{queries: 60, neighbours: 20, types: [flat]}"
    first = refresh(remote, tmp_path, flat)
    assert first.manifest["rows"] == local.manifest["rows"]
    assert first.manifest["files"] == local.manifest["files"]
    assert first.recommend("user-003", n=9) == local.recommend("user-003", n=9)
    events = [("item-1", 1584500000), ("item-7", 1584600000)]
    assert first.recommend_events(events, n=9) == local.recommend_events(events, n=9)

    second = refresh(remote, tmp_path, "{queries: 60, neighbours: 20, types: [hnsw]}")
    assert second.id != first.id and releases.current_id(remote) == second.id
    assert run(rollback, "--warehouse", remote.uri, "--reason", "clicks fell", "--to", first.id) == 0
    assert releases.current_id(remote) == first.id
    assert [entry["kind"] for entry in switches.history(remote)] == ["publish", "publish", "rollback"]
    assert run(inspect_user, "--warehouse", remote.uri, "user-003") == 0
    assert run(compare_releases, "--warehouse", remote.uri, "--a", first.id, "--b", second.id) == 0
    assert "user-003" in capsys.readouterr().out


def test_models_are_those_of_a_folder(bucket: str, tmp_path: Path) -> None:
    models, made = ("item_space", "codebook", "recommender"), []
    settings = small_profile(tmp_path)
    for uri in (str(tmp_path / "folder"), f"s3a://{bucket}/warehouse"):
        wh = Warehouse(uri)
        write_day(wh, n_items=ITEMS)
        write_texts(wh)
        write_user_side(wh)
        for job in (train_recommender, train_item_space, fit_codebook):
            assert run(job, "--warehouse", wh.uri, "--ds", DAY, "--profile", settings) == 0
        made.append([bytes_of(wh, model) for model in models])
    assert made[0] == made[1]


def test_a_store_that_does_not_answer_is_tried_again_later(
    bucket: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert run(rollback, "--warehouse", f"s3a://{bucket}/wh", "--reason", "x") == 75
    said = capsys.readouterr().err
    assert said.startswith("error: store: seen ") and "look at AWS_ENDPOINT_URL, and run it again" in said


@pytest.fixture
def strict_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start a store that knows nobody, and return the name of a bucket in it."""
    store = ObjectStore(tmp_path / "strict.log", lets_in=1)
    try:
        store.start()
        store.create_bucket("strict")
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield "strict"
    finally:
        store.stop()


def test_credentials_that_the_store_does_not_know(strict_store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(rollback, "--warehouse", f"s3a://{strict_store}/wh", "--reason", "x") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: store: seen ") and "allowed: credentials that may list, read, write" in said
