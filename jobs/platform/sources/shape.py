"""What every source has in common: what it is given, what it finds, and how it marks a row that it cannot read.

A source finds its files before Spark is started, and reads them as two Spark tables with the columns of
jobs.platform.contracts, ids as text and times as int64 seconds. Beside them each row has four columns, of which the
last two are null where it can be read: ``file`` it came from, ``row`` as it stands there, ``column_name`` and
``reason``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform.errors import JobError
from jobs.platform.storage import Storage

FAULT_COLUMNS = ("file", "row", "column_name", "reason")
LINE = "line"
"""Column that the reasons of a whole line name."""
NO_UTF_8 = "not UTF-8"
BYTES = "ISO-8859-1"
"""Encoding with a character for each byte."""
Read = Callable[[SparkSession], DataFrame]


class TimeUnit(StrEnum):
    """What a time that is a number counts."""

    seconds = "seconds"
    milliseconds = "milliseconds"

    @property
    def per_second(self) -> int:
        return 1000 if self is TimeUnit.milliseconds else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Options of an import; each source uses some of them."""

    data: str | None = None
    events: str | None = None
    items: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    """The user's name of columns of the events, by ours."""
    item_columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = TimeUnit.seconds


@dataclass(frozen=True, slots=True)
class Files:
    """Files that an option names."""

    option: str
    storage: Storage
    sizes: dict[str, int]
    """Bytes by path relative to the storage."""

    @property
    def paths(self) -> list[str]:
        """As Spark wants them."""
        return [self.storage.spark_path(name) for name in self.sizes]

    def only(self, names: list[str]) -> Files:
        """These of the files."""
        return Files(self.option, self.storage, {name: self.sizes[name] for name in names})


@dataclass(frozen=True, slots=True)
class Found:
    """What a source has found."""

    files: list[Files]
    events: Read
    items: Read | None
    """None where there are only events."""


@dataclass(frozen=True, slots=True)
class Source:
    """A format that can be imported."""

    find: Callable[[Given], Found]
    takes: tuple[str, ...]
    """Names of the fields of :class:`Given` that it uses."""


def find_files(option: str, path: str, endings: tuple[str, ...]) -> Files:
    """Find a file, or the files below a folder that end in one of ``endings``.

    Raises
    ------
    JobError
        If there is none.
    """
    parent, _, name = path.rstrip("/").rpartition("/")
    storage = Storage(parent or ("/" if path.startswith("/") else "."))
    if storage.existing([name])[0]:
        size = storage.filesystem.get_file_info(storage.path(name)).size
        return Files(option, storage, {name: size})
    sizes = {f"{name}/{file}": size for file, size in sorted(storage.files(name).items()) if file.endswith(endings)}
    if not sizes:
        kinds = " or ".join(endings)
        raise JobError(f"--{option} {path}: seen no {kinds} file there; allowed: a {kinds} file or a folder of them")
    return Files(option, storage, sizes)


def find_set(
    given: Given, source: str, endings: tuple[str, ...], table_of: Callable[[Files, str], str | None], many: bool
) -> tuple[Files, Files | None]:
    """Find a data set's files of events and of items, in one folder or by an option each.

    Parameters
    ----------
    given : Given
    source : str
        Its name, for messages.
    endings : tuple of str
    table_of : callable
        Tells of a file of the folder whether it holds ``events`` or ``items``, or neither.
    many : bool
        Whether a folder may hold several files of each.

    Raises
    ------
    JobError
        If there are no events, too many files, or a folder without items.
    """
    ways = "--data FOLDER, or --events PATH and --items PATH"
    if bool(given.data) == bool(given.events or given.items) or (given.items and not given.events):
        raise JobError(f"--source {source}: seen no files, no events or both ways to name them; allowed: {ways}")
    if not given.data:
        items = find_files("items", given.items, endings) if given.items else None
        return find_files("events", given.events or "", endings), items
    files = find_files("data", given.data, endings)
    tables = {name: table_of(files, name) for name in files.sizes}
    found = {table: [name for name in tables if tables[name] == table] for table in ("events", "items")}
    if not all(len(names) == 1 or (names and many) for names in found.values()):
        seen = " and ".join(f"{len(names)} of {table} ({', '.join(names)})" for table, names in found.items())
        raise JobError(
            f"--data {given.data}: seen {len(tables)} files, {seen}; allowed: 1{' or more' if many else ''} of each, "
            "or --events PATH and --items PATH"
        )
    return files.only(found["events"]), files.only(found["items"])


def readable(rows: DataFrame) -> DataFrame:
    """Rows of a format in which each can be read."""
    return rows.select("*", *(F.lit(None).cast("string").alias(name) for name in FAULT_COLUMNS))


def with_faults(rows: DataFrame, faults: Mapping[tuple[str, str], Column]) -> DataFrame:
    """Mark rows by the first fault that holds, unless they have one already.

    Parameters
    ----------
    rows : pyspark.sql.DataFrame
    faults : mapping of (str, str) to Column
        Condition by column and reason.
    """
    column, reason = F.lit(None).cast("string"), F.lit(None).cast("string")
    for (name, why), holds in reversed(list(faults.items())):
        column = F.when(holds, name).otherwise(column)
        reason = F.when(holds, why).otherwise(reason)
    marked = F.col("reason").isNotNull()
    return rows.withColumns(
        {
            "column_name": F.when(marked, F.col("column_name")).otherwise(column),
            "reason": F.when(marked, F.col("reason")).otherwise(reason),
        }
    )
