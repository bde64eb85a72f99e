"""Events of a run's days: read, judged row by row, matched with the catalogue, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform.catalog import NOT_TEXT, is_blank
from jobs.platform.contracts import spark_schema
from jobs.platform.lineage import content_of
from jobs.platform.warehouse import PartitionWriter, Warehouse

ROWS_A_FILE = 1_000_000
NO_ITEM, BAD_ITEM = "no row in the catalogue", "its row in the catalogue is in quarantine"


def read_events(spark: SparkSession, wh: Warehouse, paths: Sequence[str], types: Mapping[str, str]) -> DataFrame:
    """Read files of the table ``events``.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    wh : Warehouse
    paths : sequence of str
    types : mapping of str to str
        As :func:`jobs.platform.contracts.check_columns` returns them.

    Returns
    -------
    pyspark.sql.DataFrame
        All columns of the contract, null where a file has none (``weight``: 1), and ``ds``.
    """
    reader = spark.read.schema(spark_schema(types) + ", ds string")
    events = reader.option("basePath", wh.storage.spark_path("events")).parquet(*paths)
    for name, kind in {"event": "string", "weight": "float", "seq": "int"}.items():
        if name not in types:
            events = events.withColumn(name, F.lit(None).cast(kind))
    weight = F.coalesce(F.col("weight").cast("float"), F.lit(1.0).cast("float"))
    return events.select("user_id", "item_id", "timestamp", "seq", "event", weight.alias("weight"), "ds")


def judge_events(events: DataFrame, max_late_days: int) -> DataFrame:
    """Add ``column_name`` and ``reason``: null for a row that is good by itself."""
    midnight = F.unix_date(F.to_date("ds")).cast("bigint") * 86400
    in_time = F.col("timestamp").between(midnight - 86400 * max_late_days, midnight + 86399)
    rules = [
        ("user_id", is_blank("user_id"), "null or empty"),
        ("item_id", is_blank("item_id"), "null or empty"),
        *((name, ~F.is_valid_utf8(name), NOT_TEXT) for name in ("user_id", "item_id", "event")),
        ("timestamp", ~F.coalesce(in_time, F.lit(False)), "null or outside its day (contract.max_late_days)"),
        ("weight", ~F.col("weight").between(0, F.lit(3.4e38)), "negative or not a number"),
    ]
    column, reason = F.lit(None).cast("string"), F.lit(None).cast("string")
    for name, bad, why in reversed(rules):
        column = F.when(bad, name).otherwise(column)
        reason = F.when(bad, why).otherwise(reason)
    return events.withColumn("column_name", column).withColumn("reason", reason)


def match_items(events: DataFrame, catalog: DataFrame, bad_items: DataFrame) -> DataFrame:
    """Add ``item_index``; a good event whose item is not in the catalogue becomes a bad one."""
    events = events.join(catalog.select("item_id", "item_index"), "item_id", "left")
    events = events.join(bad_items.select("item_id").distinct().withColumn("bad_item", F.lit(True)), "item_id", "left")
    unknown = F.col("reason").isNull() & F.col("item_index").isNull()
    why = F.when(F.col("bad_item"), BAD_ITEM).otherwise(NO_ITEM)
    column = F.when(unknown, "item_id").otherwise(F.col("column_name"))
    reason = F.when(unknown, why).otherwise(F.col("reason"))
    return events.withColumns({"column_name": column, "reason": reason}).drop("bad_item")


def write_accepted(spark: SparkSession, out: PartitionWriter, events: DataFrame, rows: int) -> None:
    """Write the good ones of ``rows`` events, sorted by user and time."""
    columns = ["user_id", "item_index", "timestamp", "seq", "event", "weight", "arrived"]
    (
        events.filter("reason IS NULL")
        .withColumnRenamed("ds", "arrived")
        .select(*columns)
        .repartition(-(-rows // ROWS_A_FILE), "user_id")
        .sortWithinPartitions("user_id", "timestamp", "seq", "item_index", "event", "weight")
        .write.parquet(out.path)
    )
    counts = content_of(spark.read.parquet(out.path), columns)
    out.rows = counts["rows"]
    out.info |= {"events": counts["rows"], "content": counts["content"]}
