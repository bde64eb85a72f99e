from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hymirec_model.config import IndexConfig
from hymirec_model.histories import Histories
from hymirec_model.hymirec import START_SCALE
from jobs.build_index import sample_users
from jobs.export_interests import export_interests, main
from jobs.platform import cli, columns
from jobs.platform.errors import JobError
from jobs.platform.user_histories import UserHistories
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Partition, Warehouse
from tests.small_day import DIM, profile
from tests.small_model import BUCKETS, DAY, table, write_day, write_histories

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def export(spark: SparkSession, wh: Warehouse) -> Partition:
    return export_interests(spark, wh, DAY, UserHistories.find(wh, DAY), ModelParts.find(wh, DAY))


@pytest.fixture(scope="module")
def wh(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    wh = Warehouse(str(tmp_path_factory.mktemp("export")))
    write_day(wh)
    return wh


@pytest.fixture(scope="module")
def written(spark: SparkSession, wh: Warehouse) -> Partition:
    return export(spark, wh)


def test_every_user_gets_the_interests_of_the_model(wh: Warehouse, written: Partition) -> None:
    assert written.rows == 40
    assert sorted(written.files) == [f"bucket={b:03d}/part-00000.parquet" for b in range(BUCKETS)]
    found = wh.read(written).sort_by("user_id")
    histories = table(40, 300)
    assert found["user_id"].to_pylist() == histories["user_id"].to_pylist()
    assert found["n_events"].to_pylist() == histories["n_events"].to_pylist()
    expected = ModelParts.find(wh, DAY).load(wh).interests(Histories.from_arrow(histories))
    seen = columns.matrix(found["interests"].combine_chunks(), "interests", "interests")
    np.testing.assert_array_equal(seen.reshape(expected.shape), expected.astype(np.float16))
    assert set(np.concatenate(found["weights"].to_pylist())) == {1.0}
    assert found["seen"].to_pylist() == [sorted(set(items)) for items in histories["item_indices"].to_pylist()]
    model = ModelParts.find(wh, DAY).load(wh)
    bonus = model.bonus(Histories.from_arrow(histories))[2]
    assert bonus.any() and np.concatenate(found["bonus"].to_pylist()).tolist() == bonus.tolist()


def test_files_are_sorted_and_of_the_agreed_types(wh: Warehouse, written: Partition) -> None:
    for name in written.files:
        part = pq.read_table(wh.local_copy(written) / name, partitioning=None)
        ids = part["user_id"].to_pylist()
        assert ids == sorted(ids)
        assert part.schema.equals(
            pa.schema(
                [
                    pa.field("user_id", pa.string()),
                    pa.field("interests", pa.list_(pa.float16(), 3 * DIM)),
                    pa.field("weights", pa.list_(pa.float32(), 3)),
                    pa.field("n_events", pa.int64()),
                    pa.field("seen", pa.list_(pa.int32())),
                    pa.field("bonus", pa.list_(pa.float32())),
                ]
            )
        )


def test_later_jobs_can_read_it(wh: Warehouse, written: Partition) -> None:
    assert {key: written.info[key] for key in ("model_version", "k", "dim", "merge")} == {
        "model_version": "m1",
        "k": 3,
        "dim": DIM,
        "merge": "lse",
    }
    users = sample_users(wh, written, IndexConfig(queries=30))
    assert users.interests.shape == (10, 3, DIM)
    assert users.scale == pytest.approx(START_SCALE)


def test_rerun_gives_the_same_bytes(spark: SparkSession, wh: Warehouse, written: Partition) -> None:
    again = export(spark, wh)
    assert again.folder != written.folder
    for name in written.files:
        first, second = (wh.local_copy(part) / name for part in (written, again))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("merge", ["lse", "calibrated"])
def test_a_later_day_computes_touched_users_only_and_writes_the_bytes_of_a_full_export(
    spark: SparkSession, tmp_path: Path, merge: str
) -> None:
    wh, later = Warehouse(str(tmp_path)), "2020-03-21"
    write_day(wh, merge=merge)
    export(spark, wh)
    old, other = table(40, 300).slice(1), table(44, 300, seed=5)  # the first one asked to be deleted
    touched = [3, 11, 12, 40, 41]
    rows = pa.concat_tables(
        [old.filter(pa.array([user + 1 not in touched for user in range(39)])), other.take(touched)]
    )
    stale = pa.concat_tables([old, other.take([40, 41])]).sort_by("user_id")
    rows = rows.sort_by("user_id")
    assert rows["user_id"].equals(stale["user_id"]) and not rows["n_events"].equals(stale["n_events"])
    write_histories(wh, rows, later)
    for name in ("item_vectors", "item_codes"):
        copy_day(wh, name, DAY, later)
    parts, histories = ModelParts.find(wh, later), UserHistories.find(wh, later)
    written = export_interests(spark, wh, later, histories, parts)
    assert (written.rows, written.info["touched_users"]) == (41, 5)
    (Path(wh.uri) / "interests" / f"ds={DAY}" / "_current.json").unlink()
    full = export_interests(spark, wh, later, histories, parts)
    assert full.info["touched_users"] == 41 and sorted(full.files) == sorted(written.files)
    for name in written.files:
        one, other_one = (wh.local_copy(part) / name for part in (written, full))
        assert one.read_bytes() == other_one.read_bytes()


def test_who_had_an_item_that_got_other_codes_is_computed_anew(spark: SparkSession, tmp_path: Path) -> None:
    wh, later = Warehouse(str(tmp_path)), "2020-03-21"
    write_day(wh)
    export(spark, wh)
    write_histories(wh, table(40, 300), later)
    copy_day(wh, "item_vectors", DAY, later)
    old = wh.partition("item_codes", DAY)
    codes = wh.read(old)
    recoded, changed = 17, columns.matrix(codes["codes"].combine_chunks(), "item_codes", "codes").copy()
    changed[recoded] = (changed[recoded] + 1) % 32
    with wh.write_partition("item_codes", later) as part:
        place = codes.column_names.index("codes")
        part.write_table(codes.set_column(place, "codes", columns.fixed_lists(changed)), "from-000000000000.parquet")
        part.info |= old.info
    had = sum(recoded in items for items in table(40, 300)["item_indices"].to_pylist())
    parts, histories = ModelParts.find(wh, later), UserHistories.find(wh, later)
    written = export_interests(spark, wh, later, histories, parts)
    assert 0 < had == written.info["touched_users"] < 40
    (Path(wh.uri) / "interests" / f"ds={DAY}" / "_current.json").unlink()
    full = export_interests(spark, wh, later, histories, parts)
    assert full.info["touched_users"] == 40 and full.info == written.info | {"touched_users": 40}
    for name in written.files:
        assert (wh.local_copy(written) / name).read_bytes() == (wh.local_copy(full) / name).read_bytes()


def test_who_lost_events_to_retention_is_computed_anew(spark: SparkSession, tmp_path: Path) -> None:
    wh, later, rows = Warehouse(str(tmp_path)), "2020-03-21", table(40, 300)
    write_day(wh)
    retain(wh, DAY, 1)
    export(spark, wh)
    moment = sorted(stamps[0] for stamps in rows["timestamps"].to_pylist())[10]
    lists = [field.name for field in rows.schema if pa.types.is_list(field.type)]
    people, fewer = [], 0
    for person in rows.to_pylist():
        old = sum(time < moment for time in person["timestamps"])
        if old < len(person["timestamps"]):
            people.append(person | {name: person[name][old:] for name in lists})
            fewer += old > 0
    # One layer that took in the one before it: what expired is in none any more.
    write_histories(wh, pa.Table.from_pylist(people, rows.schema), later)
    retain(wh, later, moment)
    for name in ("item_vectors", "item_codes"):
        copy_day(wh, name, DAY, later)
    parts, histories = ModelParts.find(wh, later), UserHistories.find(wh, later)
    written = export_interests(spark, wh, later, histories, parts)
    assert 0 < fewer == written.info["touched_users"] < len(people)
    (Path(wh.uri) / "interests" / f"ds={DAY}" / "_current.json").unlink()
    full = export_interests(spark, wh, later, histories, parts)
    for name in written.files:
        assert (wh.local_copy(written) / name).read_bytes() == (wh.local_copy(full) / name).read_bytes()


def retain(wh: Warehouse, ds: str, keep_from: int) -> None:
    """Say that the histories of a day hold no events before a moment."""
    there = wh.partition("histories", ds)
    with wh.write_partition("histories", ds) as part:
        shutil.copytree(wh.local_copy(there), part.local, dirs_exist_ok=True)
        part.info |= there.info | {"max_days": 30, "keep_from": keep_from}


@pytest.mark.parametrize(
    "change", [{"max_length": 9}, {"lineage": "of another log"}, {"buckets": 2}, {"codes": "others"}]
)
def test_everybody_is_computed_anew_when_the_day_before_is_no_base(
    spark: SparkSession, tmp_path: Path, change: dict[str, Any]
) -> None:
    wh, later = Warehouse(str(tmp_path)), "2020-03-21"
    write_day(wh, users=8)
    written = export(spark, wh)
    with wh.write_partition("interests", DAY) as part:
        shutil.copytree(wh.local_copy(written), part.local, dirs_exist_ok=True)
        part.info |= written.info | change
    write_histories(wh, table(8, 300), later)
    for name in ("item_vectors", "item_codes"):
        copy_day(wh, name, DAY, later)
    again = export_interests(spark, wh, later, UserHistories.find(wh, later), ModelParts.find(wh, later))
    assert again.info["touched_users"] == 8


def copy_day(wh: Warehouse, name: str, before: str, later: str) -> None:
    source = wh.partition(name, before)
    with wh.write_partition(name, later) as part:
        shutil.copytree(wh.local_copy(source), part.local, dirs_exist_ok=True)
        part.info |= source.info
        part.rows = source.rows


def test_calibrated_merge_has_weights(spark: SparkSession, tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    write_day(wh, users=8, merge="calibrated")
    written = export(spark, wh)
    weights = columns.vectors(wh, written, "weights")
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert weights.std() > 0 and written.info["merge"] == "calibrated"


def test_failure_in_a_task_leaves_nothing_visible(spark: SparkSession, tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    write_day(wh, users=8)
    write_histories(wh, table(8, 300, extra=4999))
    with pytest.raises(JobError, match="seen item_index 4999; allowed: 0 to 299"):
        export(spark, wh)
    assert wh.find("interests", DAY) is None


def test_command_line(spark: SparkSession, wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.run(main, ["--warehouse", wh.uri, "--ds", DAY, "--profile", profile(tmp_path)])
    assert done.value.code == 0
    assert "interests: 40 users, 40 computed anew, 3 of 16 dimensions each, by model m1" in capsys.readouterr().out
