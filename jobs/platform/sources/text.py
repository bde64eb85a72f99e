"""Rows of text files, a line each: JSON, or columns with separators between them.

The readers give text columns, and a reason where a line cannot be read. :func:`events_of` and :func:`items_of` make
the types of the contract of them, with a reason where an id is missing or a number is none.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType, StructField, StructType

from jobs.platform.errors import JobError
from jobs.platform.sources.shape import BYTES, FAULT_COLUMNS, LINE, NO_UTF_8, Files, TimeUnit, with_faults

MISSING, NO_TIME, NO_NUMBER, NO_INTEGER = "missing", "no time", "no number", "no integer"
NO_JSON = "not one JSON object"
_HEAD_BYTES = 1 << 20
# Spark's reader, and the import with it, ends at a line with more.
_MOST_COLUMNS, _MOST_CHARS = 1_000_000, 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a file with separators is written."""

    names: tuple[str, ...]
    """Its columns in order."""
    separator: str = ","
    quote: str = '"'
    """Around texts with separators in them, doubled inside them; empty where there are no quotes."""
    header: bool = True
    old: bool = False
    """Whether a text that is not UTF-8 is ISO-8859-1."""


def read_head(files: Files, name: str) -> str:
    """First line of a file.

    Raises
    ------
    JobError
        If there is none, or it is not text.
    """
    kind = "gzip" if name.endswith(".gz") else None
    try:
        with files.storage.filesystem.open_input_stream(files.storage.path(name), compression=kind) as stream:
            lines = bytes(stream.read(_HEAD_BYTES)).decode("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise JobError(
            f"--{files.option} {name}: seen a file that cannot be opened ({error}); allowed: text"
        ) from error
    if not lines or not lines[0].strip() or "\ufffd" in lines[0]:
        seen = f"first line {lines[0][:80]!r}" if lines else "an empty file"
        raise JobError(f"--{files.option} {name}: seen {seen}; allowed: UTF-8 text with the names of the columns")
    return lines[0]


def header_of(line: str, separators: Sequence[str] = (",",)) -> tuple[str, tuple[str, ...]]:
    """Separator and names of a first line; of several separators the one that makes most of it."""
    heads = [(sign, tuple(next(csv.reader([line], delimiter=sign)))) for sign in separators]
    return max(heads, key=lambda head: len(head[1]))


def read_separated(spark: SparkSession, paths: Sequence[str], layout: Layout, wanted: Mapping[str, str]) -> DataFrame:
    """Text columns of files with separators, a record a line.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    paths : sequence of str
    layout : Layout
        Of all the files.
    wanted : mapping of str to str
        Names of the columns in the result, and in the file.
    """
    numbers = {name: f"_{number}" for number, name in enumerate(layout.names)}  # names may be anything, also twice
    schema = ", ".join(f"`_{number}` string" for number in (*range(len(layout.names)), "line"))
    raw = (
        spark.read.schema(schema)
        .options(sep=layout.separator, quote=layout.quote, escape=layout.quote, header=layout.header)
        .options(encoding=BYTES, maxColumns=_MOST_COLUMNS, maxCharsPerColumn=_MOST_CHARS)
        .options(mode="PERMISSIVE", columnNameOfCorruptRecord="_line", columnPruning=False)
        .csv(list(paths))
    )
    texts = {ours: _decoded(F.col(numbers[theirs]), layout.old) for ours, theirs in wanted.items()}
    content = F.to_json(
        F.struct(*(_decoded(F.col(numbers[name]), True).alias(name) for name in sorted(set(wanted.values()))))
    )
    rows = raw.select(
        *(text.alias(ours) for ours, text in texts.items()),
        F.col("_metadata.file_name").alias("file"),
        F.coalesce(_decoded(F.col("_line"), True), content).alias("row"),
        F.when(F.col("_line").isNotNull(), LINE).alias("column_name"),
        F.when(F.col("_line").isNotNull(), f"not {len(layout.names)} columns").alias("reason"),
        *(F.col(numbers[theirs]).alias(f"_{ours}") for ours, theirs in wanted.items()),
    )
    faults = {(ours, NO_UTF_8): F.col(f"_{ours}").isNotNull() & F.col(ours).isNull() for ours in wanted}
    return with_faults(rows, faults).select(*wanted, *FAULT_COLUMNS)


def read_json_lines(spark: SparkSession, paths: Sequence[str], wanted: Mapping[str, str]) -> DataFrame:
    """Text columns of files with a JSON object a line; what is no text there is its JSON.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    paths : sequence of str
    wanted : mapping of str to str
        Names of the columns in the result, and of the objects' keys.
    """
    line = F.expr("trim(LEADING '\ufeff' FROM value)")
    lines = spark.read.text(list(paths)).select(line.alias("row"), F.col("_metadata.file_name").alias("file"))
    lines = lines.filter(F.trim("row") != "")
    keys = StructType([StructField(key, StringType()) for key in sorted(set(wanted.values()))])
    # As an array of one: else what follows an object on its line would be passed over.
    objects = F.from_json(F.concat(F.lit("["), "row", F.lit("]")), ArrayType(keys), {"mode": "PERMISSIVE"})
    valid = F.expr("is_valid_utf8(row)")
    rows = lines.withColumn("_objects", F.when(valid, objects)).select(
        *(F.col("_objects")[0][key].alias(ours) for ours, key in wanted.items()),
        "file",
        F.expr("make_valid_utf8(row)").alias("row"),
        F.lit(None).cast("string").alias("column_name"),
        F.lit(None).cast("string").alias("reason"),
        valid.alias("_valid"),
        F.coalesce((F.size("_objects") == 1) & F.col("_objects")[0].isNotNull(), F.lit(False)).alias("_one"),
    )
    return with_faults(rows, {(LINE, NO_UTF_8): ~F.col("_valid"), (LINE, NO_JSON): ~F.col("_one")}).drop(
        "_valid", "_one"
    )


def events_of(rows: DataFrame, unit: TimeUnit) -> DataFrame:
    """Events with the contract's types, of text columns."""
    faults = {(name, MISSING): _blank(name) for name in ("user_id", "item_id", "timestamp")}
    values = {"timestamp": time_of(F.col("timestamp"), unit)}
    faults["timestamp", NO_TIME] = values["timestamp"].isNull()
    if "weight" in rows.columns:
        values["weight"] = F.col("weight").try_cast("float")
        faults["weight", NO_NUMBER] = ~_blank("weight") & values["weight"].isNull()
    if "seq" in rows.columns:
        values["seq"] = F.col("seq").try_cast("decimal(24, 6)").try_cast("int")
        faults["seq", NO_INTEGER] = ~_blank("seq") & values["seq"].isNull()
    return with_faults(rows, faults).withColumns(values)


def items_of(rows: DataFrame, unit: TimeUnit) -> DataFrame:
    """Items with the contract's types, of text columns."""
    faults = {("item_id", MISSING): _blank("item_id")}
    values = {}
    if "updated_at" in rows.columns:
        values["updated_at"] = time_of(F.col("updated_at"), unit)
        faults["updated_at", NO_TIME] = ~_blank("updated_at") & values["updated_at"].isNull()
    if "image_vector" in rows.columns:
        values["image_vector"] = F.from_json("image_vector", "array<float>")
        faults["image_vector", NO_NUMBER] = ~_blank("image_vector") & values["image_vector"].isNull()
    return with_faults(rows, faults).withColumns(values)


def time_of(text: Column, unit: TimeUnit) -> Column:
    """Seconds of a number, or of a time that begins with its day, as ISO 8601 has it; UTC where it names no zone."""
    number = F.floor(text.try_cast("decimal(24, 6)") / F.lit(unit.per_second)).try_cast("bigint")
    begins_with_day = text.rlike(r"^\s*\d{4}-\d{2}-\d{2}")  # else Spark takes 12:30 for a time of today
    return F.coalesce(number, F.when(begins_with_day, F.unix_seconds(text.try_cast("timestamp"))))


def _blank(name: str) -> Column:
    return F.coalesce(F.col(name) == "", F.lit(True))


def _decoded(raw: Column, old: bool) -> Column:
    """Text of bytes that were read as a character each; null where it is not UTF-8, unless that is ``old``."""
    text = F.try_validate_utf8(F.encode(raw, BYTES).cast("string"))
    return F.coalesce(text, raw) if old else text
