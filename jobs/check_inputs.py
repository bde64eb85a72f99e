"""Check a day's events and the catalogue against the contract; number the items.

Reads ``events`` of the days after the previous accepted day up to ds (the first run: all days up to ds) and
``items``. Writes ``accepted_events/ds``, ``catalog/ds`` and ``quarantine/ds``. Bad rows go to quarantine
with a reason; the run stops when their share exceeds ``contract.max_bad_share``, or at once when a column
is missing or has a wrong type. A bad image vector is reported there too, and its item stays without it. The run stops,
too, when good rows are unlike those of the days before; see :mod:`jobs.platform.input_drift`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform import cli, headline, plots, tracking
from jobs.platform.catalog import ITEM_COLUMNS, build_catalog, check_items
from jobs.platform.contracts import EVENTS, ITEMS, check_columns, read_footers, spark_schema
from jobs.platform.daily_events import ROWS_A_FILE, judge_events, match_items, read_events, write_accepted
from jobs.platform.datasets import dataset
from jobs.platform.errors import WarehouseError
from jobs.platform.input_drift import Drift, compare_catalog, compare_days, stop_on_breach, usual_days
from jobs.platform.input_statistics import Statistics, event_statistics
from jobs.platform.item_images import IMAGE, image_length, judge_images, with_image_faults
from jobs.platform.lineage import accepted_chain, check_days, check_numbering, content_of
from jobs.platform.names import Drift as DriftWord
from jobs.platform.names import ds_of
from jobs.platform.profile import ContractConfig, load_profile
from jobs.platform.quarantine import by_name, check_least, check_shares, of_day, write_quarantine
from jobs.platform.spark import persisted, session
from jobs.platform.staging import finish_imports
from jobs.platform.tracked_runs import StageRun
from jobs.platform.warehouse import Partition, PartitionWriter, Warehouse


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
    drift: Drift

    def __str__(self) -> str:
        bad = "".join(f"\n  quarantined {count:,}: {reason}" for reason, count in self.quarantined.items())
        return (
            f"events: {self.accepted:,} of {self.events:,} rows accepted, {self.days:,} days to {self.ds}\n"
            f"items:  {self.items:,} rows, catalogue of {self.catalog:,} ({self.new_items:,} new){bad}\n"
            f"{self.drift}"
        )


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    drift: cli.DriftOption = None,
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Check events and items of a day, and number the items.

    Writes accepted_events, catalog and quarantine. Ends with an error when a column is missing or has a
    wrong type, when more rows than the profile's contract.max_bad_share are bad, or when a day is unlike
    those before it.
    """
    settings = load_profile(profile)
    contract = replace(settings.contract, drift=cast(DriftWord, drift)) if drift else settings.contract
    wh = Warehouse(warehouse)
    inputs = find_inputs(wh, ds)
    tracking.preload()
    spark = session("check_inputs", inputs.event_rows + inputs.item_rows)
    refresh = cli.refresh_id_or_default(refresh_id, ds)
    with tracking.stage("check_inputs", ds=ds, refresh_id=refresh) as run:
        headline.begin(run.refresh, wh, settings, refresh)
        read = [dataset(wh, wh.partition("events", ds), inputs.days[ds]), dataset(wh, inputs.items, inputs.item_rows)]
        for where in (run, run.refresh):
            where.inputs(read, "input")
        run.params({"contract": contract, "previous": inputs.previous.ds if inputs.previous else "none"})
        report = check_inputs(spark, wh, ds, contract, inputs, lambda found: record(run, ds, found))
        run.metrics({"events": report.events, "accepted": report.accepted, "days": report.days})
        run.metrics({"items": report.items, "catalog": report.catalog, "new_items": report.new_items})
        run.metrics({"quarantined": sum(report.quarantined.values())})
        run.text(str(report), "report.txt")
    print(report)


def record(run: StageRun, ds: str, drift: Drift) -> None:
    """Log a day's statistics, how much of what is allowed each figure uses, and the picture of both."""
    figures = {name: value for name, value in drift.days[ds].items() if isinstance(value, int | float)}
    run.metrics({f"input/{name}": value for name, value in figures.items()})
    used = drift.of_day(ds)
    run.metrics({f"drift/{name}": value for name, value in used.items()})
    if used:
        run.figure(plots.input_drift(drift.usual | {ds: drift.days[ds]}, used), "input_drift.png")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files that a run reads, checked as far as their footers tell."""

    previous: Partition | None
    """Accepted partition that the run continues."""
    usual: dict[str, Statistics]
    """Accepted days that the run's days are compared with."""
    days: dict[str, int]
    """Rows of each day, oldest first; the last is the run's own."""
    events: list[str]
    """Paths of the days' files, for Spark."""
    event_types: dict[str, str]
    items: Partition
    item_types: dict[str, str]
    item_rows: int

    @property
    def event_rows(self) -> int:
        """Rows of all days."""
        return sum(self.days.values())

    @property
    def judged(self) -> list[str]:
        """Days that have to be good by themselves.

        A first run takes a log as it is, and judges its own day. Any later run judges all of its days, so that none is
        let in by the run of the day after it; an empty file is as good as no day.
        """
        return [day for day, rows in self.days.items() if rows] if self.previous else list(self.days)[-1:]


def find_inputs(wh: Warehouse, ds: str) -> Inputs:
    """Find the input files of day ``ds`` and check their columns; an import that was killed is finished first.

    Raises
    ------
    ImportUnfinished
        If an import is complete, but cannot be put in its place.
    MissingPartition
        If the day, or the catalogue, has no files.
    WarehouseError
        If the day has no rows, or an earlier one was brought in too late.
    SchemaError
        If a column is missing or has a wrong type.
    """
    finish_imports(wh.storage)
    wh.partition("events", ds)
    previous = wh.latest("accepted_events", until=ds, strict=True)
    chain = [] if previous is None else accepted_chain(wh, previous.ds)
    check_numbering(wh, chain)
    days = {name: ds_of(name.partition("/")[0]) for name in wh.storage.files("events") if name.endswith(".parquet")}
    files = {name: day for name, day in days.items() if day is not None and day <= ds}
    names = sorted(name for name, day in files.items() if previous is None or day > previous.ds)
    if previous is not None:
        check_days(chain, {day for day in files.values() if day <= previous.ds})
    facts = read_footers(wh.filesystem, wh.storage.path("events"), names)
    rows = dict.fromkeys(sorted({files[name] for name in names}), 0)
    for file in facts:
        rows[files[file.name]] += file.rows
    if not rows[ds]:
        raise WarehouseError(
            f"table events, partition ds={ds}: seen 0 rows; allowed: 1 or more; fill the day and run check_inputs again"
        )
    types = check_columns("events", facts, EVENTS)
    items = wh.items()
    item_facts = read_footers(wh.filesystem, items.arrow_path, sorted(items.files))
    item_types = check_columns("items", item_facts, ITEMS)
    if not sum(file.rows for file in item_facts):
        raise WarehouseError("table items: seen 0 rows; allowed: 1 or more; fill it and run check_inputs again")
    return Inputs(
        previous=previous,
        usual=usual_days(chain),
        days=rows,
        events=[wh.storage.spark_path("events", name) for name in names],
        event_types=types,
        items=items,
        item_types={name: kind for name, kind in item_types.items() if name in (*ITEM_COLUMNS, IMAGE)},
        item_rows=sum(file.rows for file in item_facts),
    )


def check_inputs(
    spark: SparkSession,
    wh: Warehouse,
    ds: str,
    contract: ContractConfig,
    inputs: Inputs,
    on_drift: Callable[[Drift], None] = lambda drift: None,
) -> Report:
    """Write accepted_events, catalog and quarantine of day ``ds``.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
    wh : Warehouse
    ds : str
    contract : ContractConfig
    inputs : Inputs
    on_drift : callable
        Gets what the comparison with earlier days found, also where that then stops the run.

    Raises
    ------
    ContractBreach
        If too many rows are bad, too few are left or they are unlike earlier ones; only quarantine is written then.
    """
    items = spark.read.schema(spark_schema(inputs.item_types)).parquet(inputs.items.path)
    events = read_events(spark, wh, inputs.events, inputs.event_types)
    previous = wh.partition("catalog", inputs.previous.ds) if inputs.previous else None
    old = spark.read.parquet(previous.path) if previous else None
    # The catalogue is committed before the events: accepted_events is what tells that a day is complete.
    with (
        persisted(check_items(items, contract)) as items,
        persisted(judge_events(events, contract.max_late_days)) as judged,
        wh.write_partition("accepted_events", ds) as accepted,
        wh.write_partition("catalog", ds) as catalog,
    ):
        length = image_length(items, old)
        items = judge_images(items, length)
        write_catalog(spark, catalog, items, judged, inputs, previous, contract, length)
        events = match_items(judged, spark.read.parquet(catalog.path), items.filter("reason IS NOT NULL"))
        write_accepted(spark, accepted, events, inputs.event_rows)
        accepted.info |= {
            "days": list(inputs.days),
            "previous": inputs.previous.ds if inputs.previous else None,
            "numbering": catalog.info["numbering"],
        }
        drift = measure_drift(spark, wh, accepted, catalog, inputs, contract)
        tables = {"events": events, "items": with_image_faults(items)}
        quarantined, by_day = write_quarantine(wh, ds, tables, inputs.judged)
        rows = {of_day("events", day): inputs.days[day] for day in inputs.judged}
        if not inputs.previous and len(inputs.days) > 1:  # else it follows from the days
            rows["events"] = inputs.event_rows
        check_shares(ds, quarantined | by_day, rows | {"items": inputs.item_rows}, contract.max_bad_share)
        good = {of_day("events", day): drift.days.get(day, {"rows": 0})["rows"] for day in inputs.judged}
        check_least(good, contract.min_events)
        check_least({"items": catalog.info["items"]}, contract.min_items)
        on_drift(drift)
        stop_on_breach(drift, contract)
    return Report(
        ds=ds,
        days=len(inputs.days),
        events=inputs.event_rows,
        accepted=accepted.info["events"],
        items=inputs.item_rows,
        catalog=catalog.info["items"],
        new_items=catalog.info["new_items"],
        quarantined=by_name(quarantined),
        drift=drift,
    )


def write_catalog(
    spark: SparkSession,
    out: PartitionWriter,
    items: DataFrame,
    events: DataFrame,
    inputs: Inputs,
    previous: Partition | None,
    contract: ContractConfig,
    image_length: int,
) -> None:
    """Write the catalogue, sorted by item_index, from judged items and (in the first run) judged events."""
    first_number = previous.info["items"] if previous else 0
    if previous is None:  # the log tells when an item came; later it is the run that first sees it
        first_seen = events.filter("reason IS NULL").groupBy("item_id").agg(F.min("ds").alias("first_ds"))
    else:
        first_seen = spark.createDataFrame([], "item_id string, first_ds string")
    old = spark.read.parquet(previous.path) if previous else None
    good = items.filter("reason IS NULL").drop("reason", "column_name")
    rows = build_catalog(good, old, first_seen, first_number, contract, image_length).fillna(out.ds, "first_ds")
    files = -(-(inputs.item_rows + first_number) // ROWS_A_FILE)
    ordered = rows.coalesce(1) if files <= 1 else rows.repartitionByRange(files, "item_index")
    ordered.sortWithinPartitions("item_index").write.parquet(out.path)
    shape = {"text_chars": F.avg(F.length("text")), "no_category": F.avg(F.col("category").isNull().cast("int"))}
    numbers = content_of(spark.read.parquet(out.path), ["item_id", "item_index"], **shape)
    out.rows = numbers["rows"]
    out.info |= {
        "items": numbers["rows"],
        "new_items": numbers["rows"] - first_number,
        **{name: numbers[name] for name in shape},
        "numbering": numbers["content"],
        "previous": previous.ds if previous else None,
        "parent_numbering": previous.info["numbering"] if previous else None,
    }
    if image_length:
        out.info["image_length"] = image_length


def measure_drift(
    spark: SparkSession,
    wh: Warehouse,
    accepted: PartitionWriter,
    catalog: PartitionWriter,
    inputs: Inputs,
    contract: ContractConfig,
) -> Drift:
    """Compare the run's days, and its catalogue, with what was accepted before; store the days' statistics."""
    days = list(inputs.days) if inputs.previous else list(inputs.days)[-contract.drift_days - 1 :]
    statistics = event_statistics(spark.read.parquet(accepted.path), spark.read.parquet(catalog.path), days)
    drift = compare_days(statistics, inputs.usual, inputs.judged, contract)
    if inputs.previous:
        before = wh.partition("catalog", inputs.previous.ds).info
        drift.findings += compare_catalog(accepted.ds, catalog.info, before, contract)
    accepted.info["statistics"] = dict(list(drift.days.items())[-contract.drift_days :])
    return drift


if __name__ == "__main__":
    cli.run(main)
