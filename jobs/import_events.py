"""Bring logs and a catalogue into a warehouse, as its input tables ``events`` and ``items``.

    python -m jobs.import_events --source completejourney --warehouse var/warehouse
    python -m jobs.import_events --source csv --events F --items F --columns user_id=customer --warehouse URI
    python -m jobs.import_events --source movielens --data FOLDER --warehouse URI

Sources are the modules of jobs.platform.sources. Spark reads and writes all rows; this process sees only examples.

Each day in the files replaces that day in the warehouse, other days stay; a day that would lose more than half of its
rows stops the import. The items replace the table items; one that they lack stays in the catalogue. All of it takes
effect at once, when it is complete: see jobs.platform.staging. Rows that cannot be read are set aside, see
jobs.platform.set_aside; the others are taken as they are, and check_inputs judges them.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated

import typer
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.platform import cli
from jobs.platform.contracts import EVENTS_FILE, ITEMS_FILE, read_footers
from jobs.platform.errors import JobError
from jobs.platform.names import ds_of
from jobs.platform.profile import ContractConfig
from jobs.platform.set_aside import Fault, check_share, count_rows, record_name, write_record
from jobs.platform.sources import SOURCES
from jobs.platform.sources.own_files import OPTIONS, parse_columns
from jobs.platform.sources.shape import FAULT_COLUMNS, Found, Given, TimeUnit, with_faults
from jobs.platform.spark import persisted, session
from jobs.platform.staging import staged
from jobs.platform.storage import Storage
from jobs.platform.warehouse import INPUT_TABLES, Warehouse

LATEST = 4102444800  # 2100-01-01: a later time means that the unit is not seconds
NO_DAY = "not from 1970 to 2100 (--time-unit says what a number counts)"
ROWS_A_FILE = 1_000_000
_DEFAULT_SHARE = ContractConfig().max_bad_share
_LEAST_LEFT = 0.5  # of a day's rows: with fewer, a part of the day was given for the whole
_NAMED = 5  # days in a message


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
    set_aside: tuple[Fault, ...] = ()
    record: str = ""
    """Folder of the rows that were set aside."""

    def __str__(self) -> str:
        bad = "".join(f"\n  {fault}" for fault in self.set_aside)
        return (
            f"events: {self.rows:,} rows, {self.users:,} users, {self.items:,} items, {self.days:,} days "
            f"from {self.first_ds} to {self.last_ds}\n"
            f"items:  {self.catalogue:,} rows{', kept as they were' if self.kept else ''}"
            + (f"\nset aside, in {self.record}:{bad}" if bad else "")
        )


def main(
    warehouse: cli.WarehouseOption,
    source: Annotated[str, cli.choice("--source", tuple(SOURCES), "Format of what is imported.")] = "parquet",
    events: Annotated[
        str | None, typer.Option(metavar="PATH", help="Events: a file or a folder of them.", show_default=False)
    ] = None,
    items: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Items, likewise; left out, the warehouse keeps those it has.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Folder of a data set: movielens, amazon-2023, pixelrec.", show_default=False
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="OURS=YOURS,…",
            help="Your names for columns of the events, such as user_id=customer,timestamp=ts.",
            show_default=False,
        ),
    ] = None,
    item_columns: Annotated[
        str | None,
        typer.Option(metavar="OURS=YOURS,…", help="Your names for columns of the items.", show_default=False),
    ] = None,
    time_unit: Annotated[TimeUnit, typer.Option(help="What a time that is a number counts.")] = TimeUnit.seconds,
    max_bad_share: Annotated[
        float, typer.Option(min=0, max=1, help="Largest share of a table's rows that may be unreadable.")
    ] = _DEFAULT_SHARE,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where a day then has less than half of the rows it had.")
    ] = False,
) -> None:
    """Bring events and items into a warehouse.

    parquet, csv and jsonl are files of your own. Events need the columns user_id, item_id, timestamp (seconds since
    1970 in UTC, or a time) and may have event, weight, seq. Items need item_id and title, and may have description,
    category, image_vector, updated_at. Days in the files replace those days in the warehouse; the items replace the
    table items, and one that they lack stays in the catalogue. Rows that cannot be read are set aside and told at the
    end.
    """
    given = Given(
        data=data,
        events=events,
        items=items,
        columns=parse_columns(OPTIONS["events"], columns, EVENTS_FILE),
        item_columns=parse_columns(OPTIONS["items"], item_columns, ITEMS_FILE),
        time_unit=time_unit,
    )
    wh = Warehouse(warehouse)
    check_options(source, given)
    for option, path in {"events": events, "items": items, "data": data}.items():
        if path:
            check_outside(option, path, wh)
    found = SOURCES[source].find(given)
    if found.items is None:
        wh.items()  # there has to be a catalogue to keep
    print(import_found(found, wh, source, max_bad_share, replace=replace))


def check_options(source: str, given: Given) -> None:
    """Refuse options that a source would not heed."""
    takes = SOURCES[source].takes
    default = Given()
    for name in (field.name for field in fields(Given)):
        if name not in takes and getattr(given, name) != getattr(default, name):
            allowed = ", ".join(f"--{name.replace('_', '-')}" for name in takes) or "none: it brings its own data"
            raise JobError(f"--source {source}: seen --{name.replace('_', '-')}; allowed: {allowed}")


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


def import_found(
    found: Found, warehouse: Warehouse, source: str, max_bad_share: float = _DEFAULT_SHARE, *, replace: bool = False
) -> Summary:
    """Read what a source has found and write the input tables, one file a day for events.

    Parameters
    ----------
    found : Found
    warehouse : Warehouse
    source : str
        Name of the source, for the record of rows that are set aside.
    max_bad_share : float
        Largest share of a table's rows that may be unreadable, 0 to 1.
    replace : bool
        Whether a day may lose more than half of its rows.

    Returns
    -------
    Summary

    Raises
    ------
    JobError
        If a table is empty, too many of its rows cannot be read, or a day would lose more than half of its rows; the
        input tables stay as they were.
    """
    spark = session("import_events")
    tables = {"events": set_aside(with_day(found.events(spark)))}
    if found.items:
        tables["items"] = set_aside(found.items(spark))
    with ExitStack() as kept:
        tables = {name: kept.enter_context(persisted(rows)) for name, rows in tables.items()}
        counted = {name: count_rows(name, rows) for name, rows in tables.items()}
        faults = [fault for _, some in counted.values() for fault in some]
        record = ""
        if faults:
            record = write_record(warehouse.storage, record_name(source, found.files), faults, tables, found.files)
        for name, (good, bad) in counted.items():
            check_share(name, good, bad, max_bad_share, warehouse.storage.spark_path(record))
            if not good:
                raise JobError(f"table {name}: seen 0 rows that can be read; allowed: 1 or more")
        good_rows = {name: rows.filter("reason IS NULL").drop(*FAULT_COLUMNS) for name, rows in tables.items()}
        with staged(warehouse.storage) as folder:
            if found.items:
                files = -(-counted["items"][0] // ROWS_A_FILE)
                good_rows["items"].coalesce(files).write.parquet(warehouse.storage.spark_path(folder, "items"))
            write_events(good_rows["events"], warehouse.storage.spark_path(folder, "events"))
            if not replace:
                check_losses(warehouse, folder)
        catalogue = counted["items"][0] if found.items else rows_of_items(warehouse)
        return summarize(good_rows["events"], catalogue, found.items is None, faults, record)


def with_day(events: DataFrame) -> DataFrame:
    """Mark events whose time belongs to no day."""
    inside = F.coalesce(F.col("timestamp").between(0, LATEST), F.lit(False))
    return with_faults(events, {("timestamp", NO_DAY): ~inside})


def set_aside(rows: DataFrame) -> DataFrame:
    """Keep where rows come from, and what they are, only where they cannot be read."""
    bad = F.col("reason").isNotNull()
    return rows.withColumns({name: F.when(bad, F.col(name)) for name in ("file", "row")})


def write_events(events: DataFrame, path: str) -> None:
    """Write events as one file a day, in an order that is always the same."""
    # By number, or Spark folds a log of thousands of thin days into one writer.
    writers = int(str(events.sparkSession.conf.get("spark.sql.shuffle.partitions")))
    (
        events.withColumn("ds", F.date_format(F.timestamp_seconds("timestamp"), "yyyy-MM-dd"))
        .repartition(writers, "ds")
        .sortWithinPartitions("ds", "timestamp", *(name for name in events.columns if name != "timestamp"))
        .write.partitionBy("ds")
        .parquet(path)
    )


def check_losses(warehouse: Warehouse, staged_in: str) -> None:
    """Refuse days that would lose more than half of their rows, by the footers of their files."""
    new = _rows_a_day(warehouse, f"{staged_in}/events")
    old = _rows_a_day(warehouse, "events", set(new))
    lost = [
        f"{day} with {new[day]:,} rows in place of {old[day]:,}" for day in old if new[day] < old[day] * _LEAST_LEFT
    ]
    if lost:
        more = f" and {len(lost) - _NAMED:,} more days" if len(lost) > _NAMED else ""
        raise JobError(
            f"table events: seen {', '.join(lost[:_NAMED])}{more}; allowed: half of a day's rows or more, because an "
            "import replaces the days that it has; give all events of these days, or --replace if this is all of them"
        )


def _rows_a_day(warehouse: Warehouse, folder: str, days: set[str] | None = None) -> dict[str, int]:
    names = [name for name in warehouse.storage.files(folder) if name.endswith(".parquet")]
    chosen = {name: day for name in sorted(names) if (day := ds_of(name.partition("/")[0])) and day in (days or {day})}
    rows = dict.fromkeys(chosen.values(), 0)
    # What nobody can read has nothing to lose.
    for file in read_footers(warehouse.filesystem, warehouse.storage.path(folder), list(chosen), skip_damaged=True):
        rows[chosen[file.name]] += file.rows
    return rows


def summarize(events: DataFrame, catalogue: int, kept: bool, faults: list[Fault], record: str) -> Summary:
    """Count what was written."""
    facts = events.agg(
        F.count(F.lit(1)).alias("rows"),
        F.min("timestamp").alias("first"),
        F.max("timestamp").alias("last"),
        F.count_distinct("user_id").alias("users"),
        F.count_distinct("item_id").alias("items"),
        F.count_distinct(F.floor(F.col("timestamp") / 86400)).alias("days"),
    ).first()
    assert facts is not None
    first, last = _day(facts.first), _day(facts.last)
    return Summary(
        facts.rows, facts.users, facts.items, facts.days, first, last, catalogue, kept, tuple(faults), record
    )


def rows_of_items(warehouse: Warehouse) -> int:
    """Rows of the catalogue that is there, by the footers of its files."""
    items = warehouse.items()
    return sum(file.rows for file in read_footers(warehouse.filesystem, items.arrow_path, sorted(items.files)))


def _day(timestamp: int) -> str:
    return datetime.fromtimestamp(timestamp, UTC).date().isoformat()


if __name__ == "__main__":
    cli.run(main)
