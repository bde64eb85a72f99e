"""Amazon Reviews 2023: a file of reviews and a file ``meta_…`` of products a category, JSON lines, plain or gzip.

A review becomes an event ``review`` with its stars as weight. An item is a parent product, which is what reviews of
its colours and sizes have in common and what the products' files describe.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform.sources.shape import Files, Found, Given, TimeUnit, find_set
from jobs.platform.sources.text import events_of, items_of, read_json_lines

ENDINGS = (".jsonl", ".jsonl.gz")
_REVIEW = {"user_id": "user_id", "item_id": "parent_asin", "timestamp": "timestamp", "weight": "rating"}
_LISTS = ("features", "description", "categories")
_PRODUCT = {"item_id": "parent_asin", "title": "title", "main_category": "main_category", "store": "store"}


def find(given: Given) -> Found:
    """Find reviews and products, in a folder or by their own options."""
    reviews, products = find_set(given, "amazon-2023", ENDINGS, _table_of, many=True)

    def read_events(spark: SparkSession) -> DataFrame:
        rows = read_json_lines(spark, reviews.paths, _REVIEW)
        return events_of(rows, TimeUnit.milliseconds).withColumn("event", F.lit("review"))

    def read_items(spark: SparkSession) -> DataFrame:
        assert products is not None
        rows = read_json_lines(spark, products.paths, _PRODUCT | {name: name for name in _LISTS})
        categories = F.concat_ws(", ", _texts("categories"))
        about = F.concat_ws(". ", "store", _texts("features"), _texts("description"))
        rows = rows.withColumns(
            {
                "category": F.coalesce(F.nullif(categories, F.lit("")), F.col("main_category")),
                "description": F.nullif(about, F.lit("")),
            }
        )
        return items_of(rows.drop("main_category", "store", "features", "categories"), TimeUnit.milliseconds)

    return Found([files for files in (reviews, products) if files], read_events, read_items if products else None)


def _table_of(_: Files, name: str) -> str:
    return "items" if name.rpartition("/")[2].startswith("meta_") else "events"


def _texts(name: str) -> Column:
    """Texts of a list that is there as JSON; a text that is no list stands for itself."""
    return F.coalesce(F.from_json(name, "array<string>"), F.array(name))
