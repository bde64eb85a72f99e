"""Which item rows are good, what their text is, and how they are numbered."""

from __future__ import annotations

import itertools
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from jobs.platform.catalog import DUPLICATE, SUPERSEDED, build_catalog, check_items
from jobs.platform.profile import ContractConfig

SCHEMA = "item_id string, title string, description string, category string, updated_at bigint"


def items(spark: SparkSession, *rows: dict[str, Any]) -> DataFrame:
    names = [column.split()[0] for column in SCHEMA.split(", ")]
    return spark.createDataFrame([tuple(row.get(name) for name in names) for row in rows], SCHEMA)


def build(spark: SparkSession, rows: DataFrame, contract: ContractConfig) -> dict[str, dict[str, Any]]:
    none_seen = spark.createDataFrame([], "item_id string, first_ds string")
    return {row.item_id: row.asDict() for row in build_catalog(rows, None, none_seen, 0, contract).collect()}


def test_of_duplicates_the_newest_good_row_stays(spark: SparkSession) -> None:
    rows = items(
        spark,
        {"item_id": "a", "title": "old", "updated_at": 1},
        {"item_id": "a", "title": "new", "updated_at": 2},
        {"item_id": "a", "title": "undated"},
        {"item_id": "a", "title": "", "updated_at": 3},
        {"item_id": None, "title": "x"},
        {"item_id": "b", "title": "one"},
    )
    judged = check_items(rows, ContractConfig()).collect()
    assert sorted((row.title, row.column_name, row.reason) for row in judged if row.reason) == [
        ("", "title", "null or empty"),
        ("old", "item_id", SUPERSEDED),
        ("undated", "item_id", SUPERSEDED),
        ("x", "item_id", "null or empty"),
    ]
    assert {row.title for row in judged if not row.reason} == {"new", "one"}


def test_rows_that_are_equally_new_are_duplicates(spark: SparkSession) -> None:
    rows = items(
        spark,
        *({"item_id": "a", "title": "same", "updated_at": 2} for _ in range(2)),
        *({"item_id": "a", "title": "older", "updated_at": 1} for _ in range(2)),
        *({"item_id": "b", "title": title} for title in ("one", "other")),
    )
    judged = check_items(rows, ContractConfig()).filter("reason IS NOT NULL").collect()
    assert sorted((row.item_id, row.updated_at, row.reason) for row in judged if row.item_id == "a") == [
        ("a", 1, SUPERSEDED),
        ("a", 1, SUPERSEDED),
        ("a", 2, DUPLICATE),
    ]
    assert [row.reason for row in judged if row.item_id == "b"] == [DUPLICATE]


def test_of_equal_duplicates_the_choice_does_not_depend_on_their_order(spark: SparkSession) -> None:
    twins = [{"item_id": "a", "title": title} for title in ("one", "two", "three")]
    chosen = set()
    for rows in (twins, twins[::-1]):
        judged = check_items(items(spark, *rows), ContractConfig())
        chosen.add(tuple(row.title for row in judged.filter("reason IS NULL").collect()))
    assert len(chosen) == 1
    assert len(chosen.pop()) == 1


def test_the_text_holds_title_description_and_category(spark: SparkSession) -> None:
    rows = items(
        spark,
        {"item_id": "a", "title": " Red  shoe ", "description": "For\nrunning", "category": "Shoes"},
        {"item_id": "b", "title": "Red\u00a0shoe", "description": "", "category": "Shoes"},
        {"item_id": "c", "title": "Red shoe", "category": "Shoes"},
    )
    found = build(spark, rows, ContractConfig(max_text_chars=25))
    assert found["a"]["text"] == "Red shoe. For running. Sh"
    assert found["b"]["text"] == found["c"]["text"] == "Red shoe. Shoes"
    assert found["b"]["text_hash"] == found["c"]["text_hash"] != found["a"]["text_hash"]
    assert len(found["a"]["text_hash"]) == 32
    assert (found["a"]["title"], found["a"]["category"]) == ("Red shoe", "Shoes")


def test_numbers_are_dense_and_tell_nothing_of_ids(spark: SparkSession) -> None:
    rows = items(spark, *({"item_id": f"{n:03}", "title": "x"} for n in range(200)))
    found = build(spark, rows, ContractConfig())
    order = sorted(found, key=lambda name: found[name]["item_index"])
    assert [found[name]["item_index"] for name in order] == list(range(200))
    assert 70 < sum(a > b for a, b in itertools.pairwise(order)) < 130
    other = build(spark, rows, ContractConfig(seed=1))
    assert other != found
