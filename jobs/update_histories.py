"""Bring every user's history up to a day by a layer of the new events; the past is not written again.

Reads ``accepted_events`` after the newest usable ``histories`` partition; writes ``histories/ds``. A partition holds
the events of its own days; older partitions are the layers below it, see jobs.platform.user_histories. A layer takes
in those right below it that are no larger than itself (the logarithmic method of Bentley and Saxe, J. Algorithms 1,
1980): an event is written again a logarithmic number of times, and a history lies in a logarithmic number of layers.
The histories are those of a rebuild from the whole log, which is what the first run does.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from jobs.platform import cli, tracking
from jobs.platform.datasets import dataset
from jobs.platform.deletions import Deletions, read_deletions
from jobs.platform.errors import WarehouseError
from jobs.platform.lineage import accepted_chain, lineage
from jobs.platform.profile import HistoriesConfig, load_profile
from jobs.platform.spark import session
from jobs.platform.user_histories import IDENTITY, UserHistories
from jobs.platform.warehouse import Partition, PartitionWriter, Warehouse

HISTORY = "user_id string, item_indices array<int>, timestamps array<bigint>, weights array<float>, n_events bigint"
SEED = 0  # of the order among events of one user with the same timestamp and no seq


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run reads and builds on."""

    layers: tuple[Partition, ...]
    """Partitions of histories that stay as they are, oldest first."""
    log: list[Partition]
    """Accepted events of the layer that is written, oldest first: those after ``layers``."""
    new: list[Partition]
    """Those of them that no histories held yet."""
    deletions: Deletions
    lineage: str
    """Fingerprint of the log that the result stands for."""
    reason: str
    """Why these layers, for people."""


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Bring every user's history up to a day.

    Adds a layer of the day's accepted events to the histories of the day before; the first run, or one after a
    change of histories.buckets, max_length or max_days or of earlier events, builds them from the whole log. People in
    the table deletions are left out.
    """
    config = load_profile(profile).histories
    wh = Warehouse(warehouse)
    plan = plan_update(wh, ds, config)
    tracking.preload()
    spark = session("update_histories", sum(partition.rows or 0 for partition in plan.log))
    with tracking.stage("update_histories", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"histories": config, "base": plan.layers[-1].ds if plan.layers else "none"})
        run.inputs([dataset(wh, partition) for partition in plan.log], "input")
        written = update_histories(spark, wh, ds, config, plan)
        run.refresh.inputs([dataset(wh, written)], "input")
        run.metrics({name: written.info[name] for name in ("users", "events", "touched_users", "new_events")})
        run.metrics({"layers": 1 + len(plan.layers), "deleted_users": len(plan.deletions.user_ids)})
    print(
        f"histories: {written.info['users']:,} users with {written.info['events']:,} events; "
        f"{written.info['touched_users']:,} had {written.info['new_events']:,} new events; {plan.reason}"
    )


def plan_update(wh: Warehouse, ds: str, config: HistoriesConfig) -> Plan:
    """Choose the layers to build on: those of the newest histories whose log and settings are those of this run.

    Raises
    ------
    MissingPartition
        If check_inputs has not run for ``ds``.
    """
    chain, deletions = accepted_chain(wh, ds), read_deletions(wh)
    fingerprints = lineage(chain)
    reason = "built from the whole log"
    for place in range(len(chain) - 1, 0, -1):
        base = wh.find("histories", chain[place - 1].ds)
        if base is None:
            continue
        changes = []
        for name in ("buckets", "max_length", "max_days"):
            if base.info[name] != (now := getattr(config, name)):
                changes.append(f"histories.{name} changed from {base.info[name]} to {now}")
        if base.info["lineage"] != fingerprints[base.ds]:
            changes.append(f"the events up to ds={base.ds} changed after its histories were built")
        if not changes:
            try:
                layers = _without(deletions, UserHistories.find(wh, base.ds))
            except WarehouseError as error:
                changes.append(str(error))
            else:
                layers = _below(layers, sum(partition.rows or 0 for partition in chain[place:]))
                log = [partition for partition in chain if not layers or partition.ds > layers[-1].ds]
                reason = f"continued from ds={base.ds} in {len(layers) + 1} layers"
                return Plan(tuple(layers), log, chain[place:], deletions, fingerprints[ds], reason)
        if place == len(chain) - 1:
            reason = f"rebuilt from the whole log because {' and '.join(changes)}"
    return Plan((), chain, chain, deletions, fingerprints[ds], reason)


def _below(layers: list[Partition], events: int) -> list[Partition]:
    """Layers that a new one of so many events leaves alone: it takes in those on top that are no larger."""
    while layers and layers[-1].info["layer_events"] <= events:
        events += layers[-1].info["layer_events"]
        layers = layers[:-1]
    return layers


def _without(deletions: Deletions, histories: UserHistories) -> list[Partition]:
    """Layers below the first one that holds somebody to delete."""
    layers = list(histories.layers)
    if deletions.fingerprint == histories.info["deletions"]:
        return layers
    for place, layer in enumerate(layers):
        if UserHistories(histories.warehouse, (layer,)).users(deletions.user_ids, []).num_rows:
            return layers[:place]
    return layers


def update_histories(spark: SparkSession, wh: Warehouse, ds: str, config: HistoriesConfig, plan: Plan) -> Partition:
    """Write ``histories/ds``: a folder a bucket, one file in each, sorted by user_id."""
    deleted = spark.createDataFrame([(user_id,) for user_id in plan.deletions.user_ids], "user_id string")
    log = spark.read.parquet(*(partition.path for partition in plan.log))
    keep_from = first_moment(ds, config.max_days)
    kept = log.join(F.broadcast(deleted), "user_id", "left_anti")
    rows = group_events(kept, config.max_length, keep_from, config.buckets)
    with wh.write_partition("histories", ds) as part:
        rows.write.partitionBy("bucket").parquet(part.path)
        _describe(spark, part, plan, keep_from)
        if not part.rows:  # all new events are of people who asked to be deleted
            part.write_table(to_arrow_schema(rows.drop("bucket").schema).empty_table(), "bucket=000/part-00000.parquet")
        part.info |= {
            "buckets": config.buckets,
            "max_length": config.max_length,
            "max_days": config.max_days,
            "keep_from": keep_from,
            "deletions": plan.deletions.fingerprint,
            "lineage": plan.lineage,
            "since": plan.layers[-1].ds if plan.layers else None,
            "layers": [{"ds": layer.ds, **{name: layer.info[name] for name in IDENTITY}} for layer in plan.layers],
        }
    return wh.partition("histories", ds)


def first_moment(ds: str, max_days: int | None) -> int:
    """Seconds since 1970 from which on events are kept on day ``ds``."""
    if max_days is None:
        return 0
    first = datetime.datetime.fromisoformat(f"{ds}T00:00:00+00:00") - datetime.timedelta(days=max_days - 1)
    return int(first.timestamp())


def _describe(spark: SparkSession, part: PartitionWriter, plan: Plan, keep_from: int) -> None:
    """Count what was written, and what it makes together with the layers below."""
    own = spark.read.schema(HISTORY).parquet(part.path)
    counted = own.agg(F.count(F.lit(1)).alias("rows"), F.coalesce(F.sum("n_events"), F.lit(0)).alias("events")).first()
    assert counted is not None
    users = own.select("user_id", "timestamps")
    for layer in plan.layers:
        users = users.union(spark.read.parquet(layer.path).select("user_id", "timestamps"))
    if keep_from:  # else of what lies below the user ids alone are read
        users = users.filter(F.array_max("timestamps") >= keep_from)
    users = users.select("user_id").distinct()
    new = spark.read.parquet(*(partition.path for partition in plan.new)).agg(F.count_distinct("user_id")).first()
    assert new is not None
    part.rows = counted.rows
    part.info |= {
        "users": users.count(),
        "events": counted.events + sum(layer.info["layer_events"] for layer in plan.layers),
        "layer_events": counted.events,
        "touched_users": new[0],
        "new_events": sum(partition.rows or 0 for partition in plan.new),
    }


def group_events(events: DataFrame, max_length: int, keep_from: int, buckets: int) -> DataFrame:
    """Gather events by user, in one shuffle and one sort of the events.

    Parameters
    ----------
    events : pyspark.sql.DataFrame
        Columns of accepted_events.
    max_length : int
        Newest events of a user that are kept.
    keep_from : int
        Seconds since 1970 before which none is.
    buckets : int
        Partitions of the result, one a folder.

    Returns
    -------
    pyspark.sql.DataFrame
        user_id, item_indices, timestamps, weights (oldest → newest), n_events (those that are not kept counted too) and
        bucket, a folder's name; each partition sorted by user_id.
    """
    tie = F.xxhash64(F.lit(SEED), "user_id", "item_index", "timestamp")  # never the item id itself: it would leak
    order = ("timestamp", "arrived", "seq", "tie", "item_index", "weight")
    # Grouped by both, Spark sees that neither the places nor the lists need another shuffle.
    user = ("user_id", "number")
    newest_first = Window.partitionBy(*user).orderBy(*(F.col(name).desc_nulls_last() for name in order))
    placed = (
        events.withColumn("tie", tie)
        .withColumn("number", (F.crc32("user_id") % buckets).cast("int"))
        .repartitionById(buckets, "number")
        .withColumn("place", F.row_number().over(newest_first))
    )
    # The others are never gathered, so that one endless history cannot fill a task's memory.
    is_kept = (F.col("place") <= max_length) & (F.col("timestamp") >= keep_from)
    kept = F.when(is_kept, F.struct("place", "item_index", "timestamp", "weight"))
    gathered = placed.groupBy(*user).agg(
        F.sort_array(F.collect_list(kept), asc=False).alias("h"), F.count(F.lit(1)).alias("n_events")
    )
    return gathered.select(
        "user_id",
        F.col("h.item_index").alias("item_indices"),
        F.col("h.timestamp").alias("timestamps"),
        F.col("h.weight").alias("weights"),
        "n_events",
        F.lpad(F.col("number").cast("string"), 3, "0").alias("bucket"),
    ).sortWithinPartitions("bucket", "user_id")


if __name__ == "__main__":
    cli.run(main)
