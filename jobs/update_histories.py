"""Bring every user's history up to a day, from yesterday's histories and today's events.

Reads ``accepted_events`` after the newest usable ``histories`` partition, and that partition; writes
``histories/ds``. The result is the same, byte for byte, as a rebuild from the whole log, which is what the
first run does.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs.platform import cli, tracking
from jobs.platform.datasets import dataset
from jobs.platform.lineage import accepted_chain, lineage
from jobs.platform.profile import HistoriesConfig, load_profile
from jobs.platform.spark import session
from jobs.platform.warehouse import Partition, Warehouse

SEED = 0  # of the order among events of one user with the same timestamp and no seq


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads."""

    base: Partition | None
    """Histories that the run continues; None for a rebuild from the whole log."""
    delta: list[Partition]
    """Accepted events after ``base``, oldest first."""
    lineage: str
    """Fingerprint of the log that the result stands for."""
    reason: str
    """Why this base, for people."""


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Bring every user's history up to a day.

    Adds the accepted events of the day to the histories of the day before; the first run, or one after a
    change of histories.buckets or histories.max_length, builds them from the whole log.
    """
    config = load_profile(profile).histories
    wh = Warehouse(warehouse)
    plan = plan_update(wh, ds, config)
    tracking.preload()
    spark = session("update_histories")
    with tracking.stage("update_histories", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"histories": config, "base": plan.base.ds if plan.base else "none"})
        read = [*plan.delta, *([plan.base] if plan.base else [])]
        run.inputs([dataset(wh, partition) for partition in read], "input")
        written = update_histories(spark, wh, ds, config, plan)
        run.refresh.inputs([dataset(wh, written)], "input")
        run.metrics({name: written.info[name] for name in ("users", "events", "touched_users", "new_events")})
    print(
        f"histories: {written.info['users']:,} users with {written.info['events']:,} events; "
        f"{written.info['touched_users']:,} had {written.info['new_events']:,} new events; {plan.reason}"
    )


def plan_update(wh: Warehouse, ds: str, config: HistoriesConfig) -> Plan:
    """Choose the histories to continue: the newest ones whose log and settings are those of this run.

    Raises
    ------
    MissingPartition
        If check_inputs has not run for ``ds``.
    """
    chain = accepted_chain(wh, ds)
    fingerprints = lineage(chain)
    reason = "built from the whole log"
    for place in range(len(chain) - 1, 0, -1):
        base = wh.find("histories", chain[place - 1].ds)
        if base is None:
            continue
        changes = []
        for name, now in (("buckets", config.buckets), ("max_length", config.max_length)):
            if base.info[name] != now:
                changes.append(f"histories.{name} changed from {base.info[name]} to {now}")
        if base.info["lineage"] != fingerprints[base.ds]:
            changes.append(f"the events up to ds={base.ds} changed after its histories were built")
        if not changes:
            return Plan(base, chain[place:], fingerprints[ds], f"continued from ds={base.ds}")
        if place == len(chain) - 1:
            reason = f"rebuilt from the whole log because {' and '.join(changes)}"
    return Plan(None, chain, fingerprints[ds], reason)


def update_histories(spark: SparkSession, wh: Warehouse, ds: str, config: HistoriesConfig, plan: Plan) -> Partition:
    """Write ``histories/ds``: a folder a bucket, one file in each, sorted by user_id."""
    rows = group_events(spark.read.parquet(*(partition.path for partition in plan.delta)), config.max_length)
    if plan.base is not None:
        rows = continue_histories(spark.read.parquet(plan.base.path).drop("bucket"), rows, config.max_length)
    bucket = F.lpad((F.crc32("user_id") % config.buckets).cast("string"), 3, "0")
    with wh.write_partition("histories", ds) as part:
        (
            rows.withColumn("bucket", bucket)
            .repartition("bucket")
            .sortWithinPartitions("bucket", "user_id")
            .write.partitionBy("bucket")
            .parquet(part.path)
        )
        counts = spark.read.parquet(part.path).agg(
            F.count(F.lit(1)).alias("users"),
            F.sum("n_events").alias("events"),
            F.max("n_events").alias("longest"),
        )
        counted = counts.first()
        assert counted is not None
        new = spark.read.parquet(*(partition.path for partition in plan.delta)).agg(F.count_distinct("user_id"))
        touched = new.first()
        assert touched is not None
        part.rows = counted.users
        part.info |= {
            **counted.asDict(),
            "touched_users": touched[0],
            "new_events": sum(partition.rows or 0 for partition in plan.delta),
            "buckets": config.buckets,
            "max_length": config.max_length,
            "lineage": plan.lineage,
        }
    return wh.partition("histories", ds)


def group_events(events: DataFrame, max_length: int) -> DataFrame:
    """Gather events by user.

    Parameters
    ----------
    events : pyspark.sql.DataFrame
        Columns of accepted_events.
    max_length : int
        Newest events of a user that are kept.

    Returns
    -------
    pyspark.sql.DataFrame
        user_id, item_indices, timestamps, weights (oldest → newest), n_events (those cut off counted too).
    """
    tie = F.xxhash64(F.lit(SEED), "user_id", "item_index", "timestamp")  # never the item id itself: it would leak
    order = ("timestamp", "seq", "tie", "item_index", "weight")
    user = Window.partitionBy("user_id")
    newest_first = user.orderBy(*(F.col(name).desc_nulls_last() for name in order))
    # Cut before gathering, so that one endless history cannot fill a task's memory.
    kept = (
        events.withColumn("tie", tie)
        .withColumn("place", F.row_number().over(newest_first))
        .withColumn("n_events", F.count(F.lit(1)).over(user))
        .filter(F.col("place") <= max_length)
    )
    gathered = kept.groupBy("user_id").agg(
        F.sort_array(F.collect_list(F.struct(*order))).alias("h"), F.first("n_events").alias("n_events")
    )
    return gathered.select(
        "user_id",
        F.col("h.item_index").alias("item_indices"),
        F.col("h.timestamp").alias("timestamps"),
        F.col("h.weight").alias("weights"),
        F.coalesce("n_events", F.lit(0)).alias("n_events"),  # not nullable, as in continued histories
    )


def continue_histories(base: DataFrame, new: DataFrame, max_length: int) -> DataFrame:
    """Append grouped events to histories; all of them are of later days than the histories'."""
    joined = base.alias("base").join(new.alias("new"), "user_id", "full_outer")

    def appended(name: str) -> Column:
        both = F.concat(*(F.coalesce(F.col(f"{side}.{name}"), F.array()) for side in ("base", "new")))
        start = F.greatest(F.size(both) - max_length, F.lit(0)) + 1
        return F.slice(both, start, max_length).alias(name)

    total = F.coalesce("base.n_events", F.lit(0)) + F.coalesce("new.n_events", F.lit(0))
    lists = (appended(name) for name in ("item_indices", "timestamps", "weights"))
    return joined.select("user_id", *lists, total.cast("bigint").alias("n_events"))


if __name__ == "__main__":
    cli.run(main)
