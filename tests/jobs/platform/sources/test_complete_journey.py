"""The built-in data are as described."""

from __future__ import annotations

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from jobs.platform.sources.complete_journey import complete_journey


def test_complete_journey(spark: SparkSession) -> None:
    events, items = complete_journey(spark)
    counts = items.agg(
        F.count(F.lit(1)).alias("products"),
        F.count_distinct("title", "description", "category").alias("texts"),
        F.count_if(F.col("title").isNull()).alias("untitled"),
    ).first()
    assert counts is not None
    assert (counts.products, counts.texts, counts.untitled) == (92331, 32385, 0)
    ice = items.filter("item_id = '25671'").first()
    assert ice is not None
    assert ice.asDict() == {
        "item_id": "25671",
        "title": "ICE - CRUSHED/CUBED 22 LB",
        "description": "FRZN ICE, National brand, manufacturer 2",
        "category": "GROCERY",
    }
    assert events.count() == 1469307
    missing = events.select("item_id").distinct().join(items, "item_id", "left_anti")
    assert missing.count() == 17
    assert events.dtypes == [
        ("user_id", "string"),
        ("item_id", "string"),
        ("timestamp", "bigint"),
        ("event", "string"),
        ("weight", "float"),
    ]
