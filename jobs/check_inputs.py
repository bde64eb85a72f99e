"""Check a day's events and the catalogue against the contract; number the items.

Reads ``events`` of the days after the previous accepted day up to ds (the first run: all days up to ds) and
``items``. Writes ``accepted_events/ds``, ``catalog/ds`` and ``quarantine/ds``. Bad rows go to quarantine
with a reason; the run stops when their share exceeds ``contract.max_bad_share``, or at once when a column
is missing or has a wrong type.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform import cli, headline, tracking
from jobs.platform.catalog import ITEM_COLUMNS, build_catalog, check_items, is_blank
from jobs.platform.contracts import EVENTS, ITEMS, check_columns, read_footers, spark_schema
from jobs.platform.datasets import dataset
from jobs.platform.errors import ContractBreach, WarehouseError
from jobs.platform.lineage import accepted_chain, check_numbering, content_of
from jobs.platform.names import ds_of
from jobs.platform.profile import ContractConfig, load_profile
from jobs.platform.quarantine import by_name, check_shares, write_quarantine
from jobs.platform.spark import session
from jobs.platform.warehouse import Partition, PartitionWriter, Warehouse

ROWS_A_FILE = 1_000_000
NO_ITEM, BAD_ITEM = "no row in the catalogue", "its row in the catalogue is in quarantine"


@dataclass(frozen=True, slots=True)
class Report:
    """What check_inputs found."""

    ds: str
    days: int
    events: int
    accepted: int
    items: int
    catalog: int
    new_items: int
    quarantined: dict[str, int]
    """Rows in quarantine by ``table.column: reason``."""

    def __str__(self) -> str:
        bad = "".join(f"\n  quarantined {count:,}: {reason}" for reason, count in self.quarantined.items())
        return (
            f"events: {self.accepted:,} of {self.events:,} rows accepted, {self.days:,} days to {self.ds}\n"
            f"items:  {self.items:,} rows, catalogue of {self.catalog:,} ({self.new_items:,} new){bad}"
        )


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Check events and items of a day, and number the items.

    Writes accepted_events, catalog and quarantine. Ends with an error when a column is missing or has a
    wrong type, or when more rows than the profile's contract.max_bad_share are bad.
    """
    settings = load_profile(profile)
    contract = settings.contract
    wh = Warehouse(warehouse)
    inputs = find_inputs(wh, ds)
    tracking.preload()
    spark = session("check_inputs")
    refresh = cli.refresh_id_or_default(refresh_id, ds)
    with tracking.stage("check_inputs", ds=ds, refresh_id=refresh) as run:
        headline.begin(run.refresh, wh, settings, refresh)
        read = [dataset(wh, wh.partition("events", ds), inputs.day_rows), dataset(wh, inputs.items, inputs.item_rows)]
        for where in (run, run.refresh):
            where.inputs(read, "input")
        run.params({"contract": contract, "previous": inputs.previous.ds if inputs.previous else "none"})
        report = check_inputs(spark, wh, ds, contract, inputs)
        run.metrics({"events": report.events, "accepted": report.accepted, "days": report.days})
        run.metrics({"items": report.items, "catalog": report.catalog, "new_items": report.new_items})
        run.metrics({"quarantined": sum(report.quarantined.values())})
        run.text(str(report), "report.txt")
    print(report)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that a run reads, checked as far as their footers tell."""

    previous: Partition | None
    """Accepted partition that the run continues."""
    days: list[str]
    events: list[str]
    """Paths of the days' files, for Spark."""
    event_types: dict[str, str]
    event_rows: int
    day_rows: int
    """Those of the run's own day."""
    items: Partition
    item_types: dict[str, str]
    item_rows: int


def find_inputs(wh: Warehouse, ds: str) -> Inputs:
    """Find the input files of day ``ds`` and check their columns.

    Raises
    ------
    MissingPartition
        If the day, or the catalogue, has no files.
    WarehouseError
        If the day has no rows.
    SchemaError
        If a column is missing or has a wrong type.
    """
    wh.partition("events", ds)
    previous = wh.latest("accepted_events", until=ds, strict=True)
    if previous is not None:
        check_numbering(wh, accepted_chain(wh, previous.ds))
    days = {name: ds_of(name.partition("/")[0]) for name in wh.storage.files("events") if name.endswith(".parquet")}
    files = {name: day for name, day in days.items() if day is not None and day <= ds}
    names = sorted(name for name, day in files.items() if previous is None or day > previous.ds)
    facts = read_footers(wh.filesystem, wh.storage.path("events"), names)
    day_rows = sum(file.rows for file in facts if files[file.name] == ds)
    if not day_rows:
        raise WarehouseError(f"table events, partition ds={ds}: seen 0 rows; allowed: 1 or more")
    types = check_columns("events", facts, EVENTS)
    items = wh.items()
    item_facts = read_footers(wh.filesystem, items.arrow_path, sorted(items.files))
    item_types = check_columns("items", item_facts, ITEMS)
    if not sum(file.rows for file in item_facts):
        raise WarehouseError("table items: seen 0 rows; allowed: 1 or more")
    return Inputs(
        previous=previous,
        days=sorted({files[name] for name in names}),
        events=[wh.storage.spark_path("events", name) for name in names],
        event_types=types,
        event_rows=sum(file.rows for file in facts),
        day_rows=day_rows,
        items=items,
        item_types={name: kind for name, kind in item_types.items() if name in ITEM_COLUMNS},
        item_rows=sum(file.rows for file in item_facts),
    )


def check_inputs(spark: SparkSession, wh: Warehouse, ds: str, contract: ContractConfig, inputs: Inputs) -> Report:
    """Write accepted_events, catalog and quarantine of day ``ds``.

    Raises
    ------
    ContractBreach
        If too many rows are bad or too few are left; only quarantine is written then.
    """
    items = spark.read.schema(spark_schema(inputs.item_types)).parquet(inputs.items.path)
    items = check_items(items, contract).persist()
    judged = judge_events(read_events(spark, wh, inputs), contract.max_late_days).persist()
    # The catalogue is committed before the events: accepted_events is what tells that a day is complete.
    with wh.write_partition("accepted_events", ds) as accepted, wh.write_partition("catalog", ds) as catalog:
        write_catalog(spark, wh, catalog, items, judged, inputs, contract)
        events = match_items(judged, spark.read.parquet(catalog.path), items.filter("reason IS NOT NULL"))
        on_day = write_accepted(spark, accepted, events, inputs)
        quarantined, of_day = write_quarantine(wh, ds, {"events": events, "items": items})
        rows_read = {"events": inputs.event_rows, "items": inputs.item_rows}
        check_shares(ds, quarantined, rows_read, contract.max_bad_share)
        # A bad day must not hide among the many that a first run takes.
        check_shares(ds, of_day, {f"events, partition ds={ds}": inputs.day_rows}, contract.max_bad_share)
        for name, seen, least in (
            (f"events, partition ds={ds}", on_day, contract.min_events),
            ("items", catalog.info["items"], contract.min_items),
        ):
            if seen < least:
                raise ContractBreach(f"table {name}: seen {seen:,} good rows; allowed: {least:,} or more")
    items.unpersist()
    judged.unpersist()
    return Report(
        ds=ds,
        days=len(inputs.days),
        events=inputs.event_rows,
        accepted=accepted.info["events"],
        items=inputs.item_rows,
        catalog=catalog.info["items"],
        new_items=catalog.info["new_items"],
        quarantined=by_name(quarantined),
    )


def write_catalog(
    spark: SparkSession,
    wh: Warehouse,
    out: PartitionWriter,
    items: DataFrame,
    events: DataFrame,
    inputs: Inputs,
    contract: ContractConfig,
) -> None:
    """Write the catalogue, sorted by item_index, from judged items and (in the first run) judged events."""
    previous = wh.partition("catalog", inputs.previous.ds) if inputs.previous else None
    first_number = previous.info["items"] if previous else 0
    if previous is None:  # the log tells when an item came; later it is the run that first sees it
        first_seen = events.filter("reason IS NULL").groupBy("item_id").agg(F.min("ds").alias("first_ds"))
    else:
        first_seen = spark.createDataFrame([], "item_id string, first_ds string")
    old = spark.read.parquet(previous.path) if previous else None
    good = items.filter("reason IS NULL").drop("reason", "column_name")
    rows = build_catalog(good, old, first_seen, first_number, contract).fillna(out.ds, "first_ds")
    files = -(-(inputs.item_rows + first_number) // ROWS_A_FILE)
    ordered = rows.coalesce(1) if files <= 1 else rows.repartitionByRange(files, "item_index")
    ordered.sortWithinPartitions("item_index").write.parquet(out.path)
    numbers = content_of(spark.read.parquet(out.path), ["item_id", "item_index"])
    out.rows = numbers["rows"]
    out.info |= {
        "items": numbers["rows"],
        "new_items": numbers["rows"] - first_number,
        "numbering": numbers["content"],
        "previous": previous.ds if previous else None,
        "parent_numbering": previous.info["numbering"] if previous else None,
    }


def write_accepted(spark: SparkSession, out: PartitionWriter, events: DataFrame, inputs: Inputs) -> int:
    """Write the good events, sorted by user and time, and return how many are of the run's own day."""
    columns = ["user_id", "item_index", "timestamp", "seq", "event", "weight", "arrived"]
    (
        events.filter("reason IS NULL")
        .withColumnRenamed("ds", "arrived")
        .select(*columns)
        .repartition(-(-inputs.event_rows // ROWS_A_FILE), "user_id")
        .sortWithinPartitions("user_id", "timestamp", "seq", "item_index", "event", "weight")
        .write.parquet(out.path)
    )
    on_day = F.count_if(F.col("arrived") == out.ds)
    counts = content_of(spark.read.parquet(out.path), columns, on_day=on_day)
    out.rows = counts["rows"]
    out.info |= {
        "events": counts["rows"],
        "days": len(inputs.days),
        "first_day": inputs.days[0],
        "previous": inputs.previous.ds if inputs.previous else None,
        "content": counts["content"],
    }
    return int(counts["on_day"])


def read_events(spark: SparkSession, wh: Warehouse, inputs: Inputs) -> DataFrame:
    """Events of the run's days with all columns of the contract, and ``ds``."""
    reader = spark.read.schema(spark_schema(inputs.event_types) + ", ds string")
    events = reader.option("basePath", wh.storage.spark_path("events")).parquet(*inputs.events)
    for name, kind in {"event": "string", "weight": "float", "seq": "int"}.items():
        if name not in inputs.event_types:
            events = events.withColumn(name, F.lit(None).cast(kind))
    weight = F.coalesce(F.col("weight").cast("float"), F.lit(1.0).cast("float"))
    return events.select("user_id", "item_id", "timestamp", "seq", "event", weight.alias("weight"), "ds")


def judge_events(events: DataFrame, max_late_days: int) -> DataFrame:
    """Add ``column_name`` and ``reason``: null for a row that is good by itself."""
    midnight = F.unix_date(F.to_date("ds")).cast("bigint") * 86400
    in_time = F.col("timestamp").between(midnight - 86400 * max_late_days, midnight + 86399)
    rules = {
        "user_id": (is_blank("user_id"), "null or empty"),
        "item_id": (is_blank("item_id"), "null or empty"),
        "timestamp": (~F.coalesce(in_time, F.lit(False)), "null or outside its day (contract.max_late_days)"),
        "weight": (~F.col("weight").between(0, F.lit(3.4e38)), "negative or not a number"),
    }
    column, reason = F.lit(None).cast("string"), F.lit(None).cast("string")
    for name, (bad, why) in reversed(rules.items()):
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


if __name__ == "__main__":
    cli.run(main)
