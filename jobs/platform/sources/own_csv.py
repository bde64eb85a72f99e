"""The user's own CSV, plain or gzip: the first line names the columns.

Separators are a comma, semicolon, tab or bar, found by the first line; quotes are ``"``, doubled inside a text. A
text of an item may have several lines, one of an event may not: so a log is read in parts, by many tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from jobs.platform.contracts import EVENTS_FILE, ITEMS_FILE, Contract
from jobs.platform.sources.own_files import names_in_file, need_events, say_unused
from jobs.platform.sources.records import read_records
from jobs.platform.sources.shape import FAULT_COLUMNS, Files, Found, Given, Read, find_files
from jobs.platform.sources.text import Layout, events_of, header_of, items_of, read_head, read_separated
from jobs.platform.storage import Storage

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_SEPARATORS = (",", ";", "\t", "|")


def find(given: Given) -> Found:
    """Find CSV files of events and items."""
    events = find_files("events", need_events(given, "csv"), ENDINGS)
    items = find_files("items", given.items, ENDINGS) if given.items else None
    event_texts = csv_texts("events", events, EVENTS_FILE, given.columns)
    item_texts = csv_texts("items", items, ITEMS_FILE, given.item_columns) if items else None
    return Found(
        [files for files in (events, items) if files],
        lambda spark: events_of(event_texts(spark), given.time_unit),
        (lambda spark: items_of(item_texts(spark), given.time_unit)) if item_texts else None,
    )


def csv_texts(table: str, files: Files, contract: Contract, columns: Mapping[str, str]) -> Read:
    """Look at the first line of CSV files; return what reads the columns of the contract from them, as text.

    Raises
    ------
    SchemaError
        If a file lacks a column.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for name in files.sizes:
        groups.setdefault(header_of(read_head(files, name), _SEPARATORS), []).append(name)
    wanted = {head: names_in_file(table, head[1], contract, columns, names[0]) for head, names in groups.items()}
    unused = {name for (_, header), ours in wanted.items() for name in header if name not in ours.values()}
    say_unused(table, unused)

    def read(spark: SparkSession) -> DataFrame:
        parts = []
        for (separator, header), names in groups.items():
            group, ours = files.only(names), wanted[separator, header]
            if table == "items":
                parts.append(_read_records(spark, group, separator, header, ours))
            else:
                parts.append(read_separated(spark, group.paths, Layout(names=header, separator=separator), ours))
        return reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), parts)

    return read


def _read_records(
    spark: SparkSession, files: Files, separator: str, header: Sequence[str], wanted: Mapping[str, str]
) -> DataFrame:
    """Text columns of files whose texts may have several lines; one task a file."""
    uri, width = files.storage.uri, len(header)
    places = {ours: header.index(theirs) for ours, theirs in wanted.items()}

    def parse(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for name in batch.to_pydict()["name"]:
                yield from read_records(Storage(uri), name, separator, width, places)

    names = spark.createDataFrame([(name,) for name in files.sizes], "name string").repartition(
        len(files.sizes), "name"
    )
    schema = ", ".join(f"`{column}` string" for column in (*places, *FAULT_COLUMNS))
    return names.mapInArrow(parse, schema)
