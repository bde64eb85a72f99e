"""Bring logs and a catalogue into a warehouse, as its input tables ``events`` and ``items``.

    python -m jobs.import_events --source completejourney --warehouse var/warehouse
    python -m jobs.import_events --source parquet --events F --items F --warehouse URI

Files are Parquet, each a file or a folder of files:

- events: user_id, item_id, timestamp (int64 seconds since 1970 in UTC, or a timestamp), optionally event,
  weight, seq (the order of events with equal timestamps);
- items: item_id, title, optionally description, category, image_vector, updated_at.

Each day in the file replaces that day in the warehouse, other days stay; the items file replaces the
catalogue, and without one the catalogue stays. Rows are taken as they are: check_inputs judges them. The
Complete Journey takes about a minute on 2 cores.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform import cli
from jobs.platform.built_in import complete_journey
from jobs.platform.contracts import (
    EVENTS_FILE,
    ITEMS_FILE,
    NANOSECONDS,
    Contract,
    check_columns,
    read_footers,
    spark_schema,
)
from jobs.platform.errors import JobError, SchemaError
from jobs.platform.spark import session
from jobs.platform.storage import Storage
from jobs.platform.warehouse import INPUT_TABLES, Warehouse

LATEST = 4102444800  # 2100-01-01: a later time means that the unit is not seconds
ROWS_A_FILE = 1_000_000
_STAGING = ".import"  # a name that no listing of tables or data shows


class Source(StrEnum):
    """Where the data come from."""

    completejourney = "completejourney"
    parquet = "parquet"


@dataclass(frozen=True, slots=True)
class Files:
    """The user's files of one table."""

    table: str
    paths: list[str]
    types: dict[str, str]
    """Type of each column, by the names of jobs.platform.contracts."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What an import wrote."""

    rows: int
    users: int
    items: int
    days: int
    first_ds: str
    last_ds: str
    catalogue: int
    kept: bool = False
    """Whether the catalogue is the one that was there."""

    def __str__(self) -> str:
        return (
            f"events: {self.rows:,} rows, {self.users:,} users, {self.items:,} items, {self.days:,} days "
            f"from {self.first_ds} to {self.last_ds}\n"
            f"items:  {self.catalogue:,} rows{', kept as they were' if self.kept else ''}"
        )


def main(
    warehouse: cli.WarehouseOption,
    source: Annotated[Source, typer.Option(help="Data that is built in, or files of your own.")] = Source.parquet,
    events: Annotated[
        str | None, typer.Option(metavar="PATH", help="Events: a Parquet file or a folder of them.")
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Items, likewise; left out, the warehouse keeps its catalogue."),
    ] = None,
) -> None:
    """Bring events and items into a warehouse.

    Events need the columns user_id, item_id, timestamp (int64 seconds in UTC, or a timestamp) and may have
    event, weight, seq. Items need item_id and title, and may have description, category, image_vector,
    updated_at. Days in the file replace those days in the warehouse; the items replace the catalogue.
    """
    wh = Warehouse(warehouse)
    item_rows: DataFrame | None
    if source is Source.parquet:
        if not events:
            raise JobError("--source parquet needs files: seen no events; allowed: --events PATH and --items PATH")
        if not items:
            wh.items()  # there has to be a catalogue to keep
        for table, path in {"events": events, "items": items}.items():
            if path:
                check_outside(table, path, wh)
        found = find_files("events", events, EVENTS_FILE)
        item_files = find_files("items", items, ITEMS_FILE) if items else None
        spark = session("import_events")
        event_rows = read_files(spark, found)
        item_rows = read_files(spark, item_files) if item_files else None
    else:
        if events or items:
            raise JobError(f"--source {source} brings its own data; allowed: no --events and no --items")
        event_rows, item_rows = complete_journey(session("import_events"))
    print(import_tables(event_rows, item_rows, wh))


def check_outside(table: str, path: str, warehouse: Warehouse) -> None:
    """Refuse files of the warehouse's own input tables: the import would replace them while it reads them."""
    given = Storage(path)
    place = str(given.local.resolve()) if given.local else given.uri
    for name in INPUT_TABLES:
        root = warehouse.storage.local
        own = str((root / name).resolve()) if root else warehouse.storage.spark_path(name)
        if f"{place}/".startswith(f"{own}/") or f"{own}/".startswith(f"{place}/"):
            hint = "; leave --items out to keep the catalogue that is there" if table == "items" else ""
            raise JobError(
                f"--{table} {path}: seen the warehouse's own table {name}, which the import would replace; allowed: "
                f"files elsewhere{hint}"
            )


def find_files(table: str, path: str, contract: Contract) -> Files:
    """Find the user's Parquet files and check their columns.

    Parameters
    ----------
    table : str
        ``events`` or ``items``, for messages.
    path : str
        A file or a folder of files.
    contract : tuple of Column
        Columns that the files may have; others are left out, with a printed line.

    Raises
    ------
    SchemaError
        If a column is missing or has a wrong type.
    JobError
        If there is no Parquet file.
    """
    parent, _, name = path.rstrip("/").rpartition("/")
    storage = Storage(parent or ("/" if path.startswith("/") else "."))
    names = [name]
    if not storage.existing(names)[0]:
        names = [f"{name}/{file}" for file in storage.files(name) if file.endswith(".parquet")]
    if not names:
        raise JobError(f"--{table} {path}: seen no Parquet file there; allowed: a Parquet file or a folder of them")
    facts = read_footers(storage.filesystem, storage.root, names)
    types = check_columns(table, facts, contract)
    unused = sorted({column for file in facts for column in file.types} - {column.name for column in contract})
    if unused:
        print(f"{table}: columns that are not used: {', '.join(unused)}")
    return Files(table, [storage.spark_path(name) for name in names], types)


def read_files(spark: SparkSession, files: Files) -> DataFrame:
    """Read the user's files, with ids as text and times as int64 seconds."""
    rows = spark.read.schema(spark_schema(files.types)).parquet(*files.paths)
    integers = [column for column, kind in files.types.items() if column.endswith("_id") and kind != "string"]
    if integers:
        print(f"{files.table}: integer ids become text: {', '.join(integers)}")
    for column in integers:
        rows = rows.withColumn(column, F.col(column).cast("string"))
    if files.table == "events":
        kind, time = files.types["timestamp"], F.col("timestamp")
        if kind == "timestamp":
            time = F.unix_seconds(time)
        elif kind == NANOSECONDS:
            time = F.floor(time / 1_000_000_000)
        rows = rows.withColumn("timestamp", time.cast("bigint"))
        for column, kind in {"seq": "int", "weight": "float"}.items():
            if column in files.types:
                rows = rows.withColumn(column, F.expr(f"try_cast({column} AS {kind})"))
    return rows


def import_tables(events: DataFrame, items: DataFrame | None, warehouse: Warehouse) -> Summary:
    """Write the input tables, one file a day for events.

    Parameters
    ----------
    events : pyspark.sql.DataFrame
        user_id, item_id: string; timestamp: int64 seconds; optionally event, weight, seq.
    items : pyspark.sql.DataFrame or None
        item_id and title: string; optionally description, category, image_vector, updated_at. None keeps the
        catalogue that is there.
    warehouse : Warehouse

    Returns
    -------
    Summary

    Raises
    ------
    JobError
        If a table is empty, or a timestamp is null or not in seconds; nothing is written then.
    """
    day = F.date_format(F.timestamp_seconds("timestamp"), "yyyy-MM-dd")
    outside = ~F.col("timestamp").between(0, LATEST)
    facts = events.agg(
        F.count(F.lit(1)).alias("rows"),
        F.count_if(F.col("timestamp").isNull()).alias("nulls"),
        F.count_if(outside).alias("outside"),
        F.min("timestamp").alias("first"),
        F.max("timestamp").alias("last"),
        F.count_distinct("user_id").alias("users"),
        F.count_distinct("item_id").alias("items"),
        F.count_distinct(F.when(outside, None).otherwise(F.floor(F.col("timestamp") / 86400))).alias("days"),
    ).first()
    assert facts is not None
    catalogue = rows_of_items(warehouse) if items is None else items.count()
    if facts.rows == 0 or catalogue == 0:
        raise JobError(f"table {'items' if facts.rows else 'events'}: seen 0 rows; allowed: 1 or more")
    allowed = "int64 seconds since 1970-01-01 UTC up to the year 2100 (not milliseconds), or a timestamp type"
    if facts.nulls:
        raise SchemaError("events", "timestamp", f"null in {facts.nulls:,} of {facts.rows:,} rows", allowed)
    if facts.outside:
        seen = f"{facts.outside:,} of {facts.rows:,} values outside, from {facts.first} to {facts.last}"
        raise SchemaError("events", "timestamp", seen, allowed)

    if items is not None:
        write_items(items.coalesce(-(-catalogue // ROWS_A_FILE)), warehouse)
    # By number, or Spark folds a log of thousands of thin days into one writer.
    writers = int(str(events.sparkSession.conf.get("spark.sql.shuffle.partitions")))
    (
        events.withColumn("ds", day)
        .repartition(writers, "ds")
        .sortWithinPartitions("ds", "timestamp")
        .write.mode("overwrite")
        .option("partitionOverwriteMode", "dynamic")
        .partitionBy("ds")
        .parquet(warehouse.storage.spark_path("events"))
    )
    first, last = _day(facts.first), _day(facts.last)
    return Summary(facts.rows, facts.users, facts.items, facts.days, first, last, catalogue, items is None)


def write_items(items: DataFrame, warehouse: Warehouse) -> None:
    """Replace the catalogue when the new one is complete, and not before."""
    storage = warehouse.storage
    for name in storage.folders(_STAGING):
        if storage.abandoned(f"{_STAGING}/{name}"):
            storage.remove(f"{_STAGING}/{name}")  # its import was killed
    folder = f"{_STAGING}/{uuid.uuid4().hex}"
    try:
        items.write.parquet(storage.spark_path(folder))
        storage.put(folder, "items")
    finally:
        storage.remove(folder)


def rows_of_items(warehouse: Warehouse) -> int:
    """Rows of the catalogue that is there, by the footers of its files."""
    items = warehouse.items()
    return sum(file.rows for file in read_footers(warehouse.filesystem, items.arrow_path, sorted(items.files)))


def _day(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).date().isoformat()


if __name__ == "__main__":
    cli.run(main)
