from __future__ import annotations

import errno
import json
import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hymirec_model.config import IndexConfig
from hymirec_model.index import build_index, load_index
from hymirec_model.popularity_shift import PopularityShift, Shift, shifted_queries
from jobs.build_index import Report, build, find_inputs, main, sample_users
from jobs.platform import cli, columns
from jobs.platform.errors import WarehouseError
from jobs.platform.training import read_histories
from jobs.platform.warehouse import Warehouse
from tests.small_day import K, item_vectors, profile, write_interests, write_items
from tests.small_model import table, write_histories

DAY = "2020-03-20"
CONFIG = IndexConfig(queries=60, neighbours=20)


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    wh = Warehouse(str(tmp_path / "warehouse"))
    write_items(wh, DAY, item_vectors(3000), ["2020-03-01"] * 3000)
    write_interests(wh, DAY, users=40)
    return wh


def run(wh: Warehouse, config: IndexConfig = CONFIG) -> Report:
    return build(wh, DAY, config, *find_inputs(wh, DAY))


def test_index_finds_items_by_item_index_and_reports_both_recalls(wh: Warehouse) -> None:
    report = run(wh)
    part = wh.partition("index", DAY)
    index = load_index(wh.local_copy(part) / "index.faiss")
    vectors = columns.vectors(wh, wh.partition("item_vectors", DAY)).astype(np.float32)
    assert index.d == 16 and not np.load(wh.local_copy(part) / "shift.npy").any()
    _, found = index.search(vectors[[3, 2000]], 1)
    assert found[:, 0].tolist() == [3, 2000]
    about = json.loads((wh.local_copy(part) / "index.json").read_text())
    assert about == json.loads(json.dumps(report.facts()))
    assert about["n_items"] == 3000 and about["n_queries"] == 60
    assert about["chosen"]["recall"] >= 0.99 and about["merged_recall"] >= 0.98
    assert part.info["recall"] == about["chosen"]["recall"] and part.rows == 3000


def test_flat_index_loses_nothing_but_what_the_merge_loses(wh: Warehouse) -> None:
    report = run(wh, IndexConfig(queries=60, neighbours=20, types=("flat",)))
    assert report.index.chosen.recall == 1.0
    assert report.merged_recall > 0.99


def test_what_is_popular_is_in_the_index(wh: Warehouse) -> None:
    write_histories(wh, table(40, 3000), DAY)
    write_interests(wh, DAY, users=40, shift=(28.0, 1.0))
    report = run(wh, IndexConfig(queries=60, neighbours=20, types=("flat",)))
    folder = wh.local_copy(wh.partition("index", DAY))
    shift = np.load(folder / "shift.npy")
    histories = read_histories(wh, DAY, 40)
    end = int(datetime.fromisoformat(f"{DAY}T00:00:00+00:00").timestamp()) + 86_400
    expected = PopularityShift(histories, 3000).of_items(end, Shift(28, 1), "lse", 12.0)
    assert shift.dtype == np.float32 and np.array_equal(shift, expected) and shift.any()
    assert report.shift == (28, 1) and report.merged_recall > 0.99
    vectors = columns.vectors(wh, wh.partition("item_vectors", DAY)).astype(np.float32)
    _, found = load_index(folder / "index.faiss").search(shifted_queries(vectors[[3]]), 20)
    assert set(found[0]) == set(np.argsort(-(vectors @ vectors[3] + shift / 12))[:20])


def test_rerun_gives_the_same_bytes(wh: Warehouse) -> None:
    def content() -> dict[str, bytes]:
        part = wh.partition("index", DAY)
        return {name: (wh.local_copy(part) / name).read_bytes() for name in part.files}

    config = IndexConfig(queries=60, neighbours=20, types=("ivf",))
    run(wh, config)
    before = content()
    run(wh, config)
    assert content() == before


def test_a_killed_build_leaves_no_file_of_item_vectors(
    wh: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch, seen = tmp_path / "scratch", []
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def building(*inputs: Any) -> Any:
        seen.append(list(scratch.iterdir()))  # what a kill would leave from here on
        return build_index(*inputs)

    monkeypatch.setattr("jobs.build_index.build_index", building)
    run(wh)
    assert seen == [[]]


def test_a_full_disk_is_told_in_words(
    wh: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SystemExit) as ended:
        cli.run(main, ["--warehouse", wh.uri, "--ds", DAY, "--profile", profile(tmp_path)])
    assert ended.value.code == 75
    assert "error: disk: seen [Errno 28] No space left on device; allowed: room" in capsys.readouterr().err


def test_users_are_sampled_over_all_buckets(wh: Warehouse) -> None:
    users = sample_users(wh, wh.partition("interests", DAY), IndexConfig(queries=30))
    assert users.interests.shape == (30 // K, K, 16)
    everyone = sample_users(wh, wh.partition("interests", DAY), IndexConfig(queries=10_000))
    assert everyone.interests.shape == (40, K, 16) and everyone.weights.shape == (40, K)
    assert everyone.scale == 12.0


def test_bad_input_is_named(wh: Warehouse) -> None:
    write_interests(wh, DAY, users=0)
    with pytest.raises(WarehouseError, match="interests/ds=2020-03-20 has 0 users"):
        run(wh)
    write_interests(wh, DAY, users=3)
    with wh.write_partition("item_vectors", DAY) as part:
        part.write_table(wh.read(wh.partition("catalog", DAY)))
        part.info |= {"space_version": "e1", "dim": 8}
    with pytest.raises(WarehouseError, match="has 16 dimensions, item_vectors/ds=2020-03-20 8"):
        find_inputs(wh, DAY)


def test_command_line(wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--warehouse", wh.uri, "--ds", DAY, "--profile", profile(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        cli.run(main, arguments)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "over 3,000 items of 16 dimensions" in out and "← chosen" in out

    with pytest.raises(SystemExit) as ended:
        cli.run(main, ["--warehouse", wh.uri, "--ds", "2020-03-21", "--profile", profile(tmp_path)])
    assert ended.value.code == 2
    assert "missing partition item_vectors/ds=2020-03-21" in capsys.readouterr().err
