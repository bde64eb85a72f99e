"""The user's own Parquet: columns of the contract, by their names or by those that the user has for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform.contracts import (
    EVENTS_FILE,
    ITEMS_FILE,
    NANOSECONDS,
    Contract,
    FileFacts,
    check_columns,
    read_footers,
    spark_schema,
)
from jobs.platform.sources.own_files import names_in_file, need_events, say_unused
from jobs.platform.sources.shape import Files, Found, Given, TimeUnit, find_files


@dataclass(frozen=True, slots=True)
class Table:
    """The user's files of one table."""

    name: str
    files: Files
    types: dict[str, str]
    """Type of each column, by the names of jobs.platform.contracts."""
    columns: Mapping[str, str]
    """The user's names, where they are others."""


def find(given: Given) -> Found:
    """Find Parquet files of events and items."""
    events = find_table("events", need_events(given, "parquet"), EVENTS_FILE, given.columns)
    items = find_table("items", given.items, ITEMS_FILE, given.item_columns) if given.items else None
    return Found(
        [table.files for table in (events, items) if table],
        partial(read, table=events, unit=given.time_unit),
        partial(read, table=items, unit=given.time_unit) if items else None,
    )


def find_table(name: str, path: str, contract: Contract, columns: Mapping[str, str] | None = None) -> Table:
    """Find the files of a table and check their columns.

    Raises
    ------
    SchemaError
        If a column is missing or has a wrong type.
    JobError
        If there is no Parquet file.
    """
    columns = columns or {}
    files = find_files(name, path, (".parquet",))
    facts = read_footers(files.storage.filesystem, files.storage.root, list(files.sizes))
    for file in facts:
        names_in_file(name, list(file.types), contract, columns, file.name)
    renamed = [_renamed(file, columns) for file in facts]
    types = check_columns(name, renamed, contract)
    say_unused(name, {column for file in renamed for column in file.types} - {column.name for column in contract})
    return Table(name, files, types, columns)


def read(spark: SparkSession, table: Table, unit: TimeUnit) -> DataFrame:
    """Read files, with ids as text and times as int64 seconds."""
    theirs = {column: table.columns.get(column, column) for column in table.types}
    schema = spark_schema({theirs[column]: kind for column, kind in table.types.items()})
    stored = spark.read.schema(schema).parquet(*table.files.paths)
    rows = stored.select(
        *(F.col(f"`{name}`").alias(column) for column, name in theirs.items()),
        F.col("_metadata.file_name").alias("file"),
    )
    rows = rows.withColumn("row", F.to_json(F.struct(*table.types)))
    integers = [column for column, kind in table.types.items() if column.endswith("_id") and kind != "string"]
    if integers:
        print(f"{table.name}: integer ids become text: {', '.join(integers)}")
    for column in integers:
        rows = rows.withColumn(column, F.col(column).cast("string"))
    if table.name == "events":
        kind, time = table.types["timestamp"], F.col("timestamp")
        if kind == "timestamp":
            time = F.unix_seconds(time)
        elif kind == NANOSECONDS:
            time = F.floor(time / 1_000_000_000)
        else:
            time = F.floor(time / unit.per_second) if unit.per_second > 1 else time
        rows = rows.withColumn("timestamp", time.cast("bigint"))
        for column, kind in {"seq": "int", "weight": "float"}.items():
            if column in table.types:
                rows = rows.withColumn(column, F.expr(f"try_cast({column} AS {kind})"))
    nothing = F.lit(None).cast("string")
    return rows.withColumns({"column_name": nothing, "reason": nothing})


def _renamed(file: FileFacts, columns: Mapping[str, str]) -> FileFacts:
    """The file as if its columns had our names."""
    ours = {theirs: name for name, theirs in columns.items()}
    kept = {name: kind for name, kind in file.types.items() if name not in columns or name in ours}
    return replace(
        file,
        types={ours.get(name, name): kind for name, kind in kept.items()},
        nanosecond=frozenset(ours.get(name, name) for name in file.nanosecond),
    )
