"""Image vectors from the input table to item vectors; a bad one costs an item its image and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from jobs import train_item_space
from jobs.check_inputs import Report, check_inputs, find_inputs
from jobs.platform import cli, columns
from jobs.platform.errors import ContractBreach
from jobs.platform.item_images import read_images
from jobs.platform.profile import ContractConfig
from jobs.platform.warehouse import Warehouse
from tests.jobs.test_train_models import ITEMS, NEXT, run, small_profile, write_texts
from tests.small_model import DAY, table, write_day, write_histories

Put = Callable[..., Path]
Check = Callable[..., Report]
D1, D2, D3 = "2024-02-28", "2024-02-29", "2024-03-01"
LENIENT = ContractConfig(max_bad_share=0.99)
FLOATS = pa.list_(pa.float32())


@pytest.fixture
def check(spark: SparkSession, warehouse: Warehouse, put_events: Put, put_items: Put, at: Callable[..., int]) -> Check:
    """``check(ds, images, contract)``: check a day on which items have these images, by item."""

    def run_day(ds: str, images: dict[str, Any], contract: ContractConfig = LENIENT) -> Report:
        rows = [{"item_id": name, "title": "One title", "image_vector": image} for name, image in images.items()]
        put_items(rows, image_vector=FLOATS)
        put_events(ds, [{"user_id": "u", "item_id": "a", "timestamp": at(ds)}])
        return check_inputs(spark, warehouse, ds, contract, find_inputs(warehouse, ds))

    return run_day


def images_of(warehouse: Warehouse, ds: str) -> dict[str, Any]:
    rows = warehouse.read(warehouse.partition("catalog", ds)).to_pylist()
    return {row["item_id"]: row["image_vector"] for row in rows}


def test_a_bad_image_costs_an_item_its_image_alone(check: Check, warehouse: Warehouse) -> None:
    good = {"a": [3.0, 4.0], "b": [0.0, -1e-30], "c": [1e30, 0.0], "none": None, "empty": []}
    bad = {"short": [1.0], "long": [1.0, 2.0, 3.0], "nan": [1.0, float("nan")], "inf": [float("inf"), 0.0]}
    bad |= {"hole": [None, 1.0], "zero": [0.0, 0.0]}
    report = check(D1, good | bad)
    assert report.quarantined == {
        "items.image_vector: not 2 numbers, as most have": 2,
        "items.image_vector: not all numbers": 3,
        "items.image_vector: all zero": 1,
    }
    assert report.catalog == 11
    found = images_of(warehouse, D1)
    assert {name for name, image in found.items() if image is not None} == {"a", "b", "c"}
    assert {row["column_name"] for row in warehouse.read(warehouse.partition("quarantine", D1)).to_pylist()} == {
        "image_vector"
    }
    images = read_images(warehouse, D1)
    assert images is not None and images.dtype == np.float16
    unit = dict(zip(found, images.tolist(), strict=True))
    assert unit["a"] == pytest.approx([0.6, 0.8], abs=1e-3)
    assert (unit["b"], unit["c"], unit["none"], unit["nan"]) == ([0, -1], [1, 0], [0, 0], [0, 0])


def test_items_without_an_image_may_fill_a_whole_batch(
    check: Check, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(D1, {"a": [1.0, 0.0], "b": None, "c": [0.0, 1.0]})
    monkeypatch.setattr(columns, "batches", partial(columns.batches, rows=1))
    images = read_images(warehouse, D1)
    assert images is not None
    assert dict(zip(images_of(warehouse, D1), images.tolist(), strict=True)) == {"a": [1, 0], "b": [0, 0], "c": [0, 1]}


def test_too_many_bad_images_stop_the_run(check: Check, warehouse: Warehouse) -> None:
    images = {"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0]}
    with pytest.raises(ContractBreach, match=r"table items: seen 1 bad of 3 rows .column image_vector: 1 all zero"):
        check(D1, images, ContractConfig(max_bad_share=0.3))
    assert warehouse.partitions("catalog") == []


def test_images_live_as_long_as_their_items_and_their_model(check: Check, warehouse: Warehouse) -> None:
    check(D1, {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 1.0]})
    check(D2, {"a": [0.5, 0.5], "b": None})  # c is gone
    assert images_of(warehouse, D2) == {"a": [0.5, 0.5], "b": None, "c": [1.0, 1.0]}
    check(D3, {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 4.0]})  # another image model
    assert images_of(warehouse, D3) == {"a": [1.0, 2.0, 3.0], "b": [1.0, 2.0, 4.0], "c": None}
    check("2024-03-02", {"a": None, "b": []})
    assert "image_vector" not in warehouse.read(warehouse.partition("catalog", "2024-03-02")).column_names
    assert read_images(warehouse, "2024-03-02") is None


def test_a_file_of_new_items_leaves_the_images_of_the_others(check: Check, warehouse: Warehouse) -> None:
    check(D1, {"a": [1.0, 0.0], "b": [0.0, 1.0], "d": [1.0, 1.0]})
    check(D2, {"c": None})
    assert images_of(warehouse, D2) == {"a": [1.0, 0.0], "b": [0.0, 1.0], "d": [1.0, 1.0], "c": None}
    report = check(D3, {"c": [1.0, 2.0, 3.0], "e": None})  # most have two numbers
    assert report.quarantined == {"items.image_vector: not 2 numbers, as most have": 1}
    assert images_of(warehouse, D3) == images_of(warehouse, D2) | {"e": None}


def add_images(wh: Warehouse, ds: str, images: list[Any] | None) -> None:
    """Write the catalogue of ``ds`` as that of DAY, with these images."""
    table = wh.read(wh.partition("catalog", DAY))
    if "image_vector" in table.column_names:
        table = table.drop_columns("image_vector")
    with wh.write_partition("catalog", ds) as part:
        if images is not None:
            table = table.append_column("image_vector", pa.array(images, FLOATS))
            part.info["image_length"] = 6
        part.write_table(table)


def vectors_of(wh: Warehouse, ds: str) -> tuple[np.ndarray, list[str]]:
    part = wh.partition("item_vectors", ds)
    return columns.vectors(wh, part).astype(np.float32), wh.read(part, ["text_hash"])["text_hash"].to_pylist()


def test_item_vectors_follow_texts_and_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wh, settings = Warehouse(str(tmp_path / "warehouse")), small_profile(tmp_path)
    write_day(wh, n_items=ITEMS)
    write_texts(wh)
    run(train_item_space, wh, settings)
    plain, hashes = vectors_of(wh, DAY)

    images = list(np.random.default_rng(1).normal(size=(ITEMS, 6)).astype(np.float32))
    images[7] = None
    add_images(wh, NEXT, images)
    run_next = ["--warehouse", wh.uri, "--ds", NEXT, "--profile", settings]
    with pytest.raises(SystemExit) as done:
        cli.run(train_item_space.main, [*run_next, "--retrain", "never"])
    assert done.value.code == 2
    assert "retrain is never, but image vectors have 6 numbers, the item space knows none" in capsys.readouterr().err
    assert NEXT not in wh.partitions("item_vectors")

    # The day of the first run again, now with images: from scratch, as the space without them is of the same day.
    add_images(wh, DAY, images)
    run(train_item_space, wh, settings)
    pictured, of_both = vectors_of(wh, DAY)
    changed = [index for index in range(ITEMS) if of_both[index] != hashes[index]]
    assert changed == [index for index in range(ITEMS) if index != 7], "an image is not told from another one"
    assert np.abs(pictured - plain).max(1)[np.arange(ITEMS) != 7].min() > 1e-4
    space = wh.partition("item_space", DAY)

    images[3], images[4] = images[4], None
    add_images(wh, DAY, images)
    with wh.write_partition("catalog", NEXT) as part:
        part.write_table(wh.read(wh.partition("catalog", DAY)))
        part.info["image_length"] = 6
    run(train_item_space, wh, settings, ds=NEXT)
    assert wh.partitions("item_space") == [space.ds], "images that change do not make training due"
    later, of_later = vectors_of(wh, NEXT)
    assert [i for i in range(ITEMS) if of_later[i] != of_both[i]] == [3, 4] and of_later[4] == hashes[4]
    moved = np.flatnonzero(np.abs(later - pictured).max(1) > 1e-3).tolist()
    assert moved == [3, 4]

    add_images(wh, NEXT, None)
    write_histories(wh, table(40, ITEMS), NEXT)
    run(train_item_space, wh, settings, ds=NEXT)
    assert "trained (image vectors have no numbers, the item space knows 6)" in capsys.readouterr().out
    assert vectors_of(wh, NEXT)[1] == hashes
