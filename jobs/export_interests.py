"""Compute every user's interests from the whole history up to the end of the day.

Reads ``histories/ds``, ``item_codes/ds``, ``item_vectors/ds`` and the newest recommender and codebook. Writes
``interests/ds``: a folder a bucket, one file in each, sorted by user_id.

Spark hands one bucket of histories to a task; a Python worker loads the model once. The tasks write the files
themselves, because Spark has neither 16-bit floats nor lists of fixed length.
"""

from __future__ import annotations

from pyspark.sql import SparkSession

from jobs.platform import cli, tracking
from jobs.platform.datasets import dataset
from jobs.platform.errors import JobError, WarehouseError
from jobs.platform.interest_export import RESULT, BucketExport
from jobs.platform.names import end_of
from jobs.platform.profile import load_profile
from jobs.platform.spark import session
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Partition, Warehouse


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Compute every user's interests from the whole history up to the end of the day.

    Writes interests, in the buckets of the histories.
    """
    load_profile(profile)
    wh = Warehouse(warehouse)
    histories, parts = wh.partition("histories", ds), ModelParts.find(wh, ds)
    tracking.preload()
    spark = session("export_interests")
    with tracking.stage("export_interests", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.inputs([dataset(wh, histories), dataset(wh, parts.vectors)], "inference")
        written = export_interests(spark, wh, ds, histories, parts)
        run.params(written.info)
        run.metrics({"users": written.rows or 0, "bytes": sum(written.files.values())})
    print(
        f"interests: {written.rows:,} users, {written.info['k']} of {written.info['dim']} dimensions each, "
        f"by model {written.info['model_version']}"
    )


def export_interests(spark: SparkSession, wh: Warehouse, ds: str, histories: Partition, parts: ModelParts) -> Partition:
    """Write interests/ds.

    Raises
    ------
    WarehouseError
        If there are no histories.
    JobError
        If histories, codes and model do not fit together.
    """
    buckets = sorted({name.split("/")[0] for name in histories.files if name.endswith(".parquet")})
    if not buckets or not histories.rows:
        raise WarehouseError(f"histories/ds={ds}: seen 0 users; allowed: 1 or more; run update_histories again")
    with wh.write_partition("interests", ds) as part:
        target = part.path.removeprefix(f"{wh.uri}/")
        task = BucketExport(wh.uri, histories, parts, target, end_of(ds))
        # One task a bucket: the model's memory, not the cores, should bound what runs at once.
        todo = spark.createDataFrame([(name,) for name in buckets], "bucket string").repartitionByRange(
            len(buckets), "bucket"
        )
        done = todo.mapInArrow(task, RESULT).collect()
        errors = [row.error for row in done if row.error]
        if errors:
            raise JobError(errors[0])
        part.rows = sum(row.users for row in done)
        part.info |= {"model_version": parts.recommender.info["model_version"]}
        part.info |= {name: done[0][name] for name in ("k", "dim", "merge", "scale")}
        part.info |= {"buckets": histories.info["buckets"]}
        if part.rows != histories.rows:
            raise WarehouseError(
                f"interests/ds={ds}: seen {part.rows:,} users; allowed: {histories.rows:,}, those of "
                f"histories/ds={ds}; run export_interests again"
            )
    return wh.partition("interests", ds)


if __name__ == "__main__":
    cli.run(main)
