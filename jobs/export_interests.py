"""Compute the interests of users with new events or recoded items; the others keep theirs, unless the model changed.

Reads ``histories/ds``, ``item_codes/ds``, ``item_vectors/ds``, the newest recommender and codebook, and the newest
``interests`` before, with the histories and codes of their day. Writes ``interests/ds``: a folder a bucket, one file in
each, sorted by user_id. The bytes are those of a run that computes everybody's: interests depend on the model, and on a
user's history and its items' codes.

Spark hands one bucket of histories to a task; a Python worker loads the model once. The tasks write the files
themselves, because Spark has neither 16-bit floats nor lists of fixed length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import SparkSession

from jobs.platform import cli, columns, tracking
from jobs.platform.datasets import dataset
from jobs.platform.errors import JobError, WarehouseError
from jobs.platform.interest_export import RESULT, BucketExport, Kept
from jobs.platform.lineage import accepted_chain, lineage
from jobs.platform.profile import load_profile
from jobs.platform.spark import session
from jobs.platform.user_histories import UserHistories
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Partition, Warehouse

Codes = npt.NDArray[np.uint8]


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Compute the interests of users with new events or recoded items, or everybody's when the model changed.

    Writes interests, in the buckets of the histories.
    """
    load_profile(profile)
    wh = Warehouse(warehouse)
    histories, parts = UserHistories.find(wh, ds), ModelParts.find(wh, ds)
    tracking.preload()
    spark = session("export_interests")
    with tracking.stage("export_interests", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.inputs([dataset(wh, histories.layers[-1]), dataset(wh, parts.vectors)], "inference")
        written = export_interests(spark, wh, ds, histories, parts)
        run.params({name: value for name, value in written.info.items() if name != "touched_users"})
        run.metrics({"users": written.rows or 0, "touched_users": written.info["touched_users"]})
        run.metrics({"bytes": sum(written.files.values())})
    print(
        f"interests: {written.rows:,} users, {written.info['touched_users']:,} computed anew, "
        f"{written.info['k']} of {written.info['dim']} dimensions each, "
        f"by model {written.info['model_version']}"
    )


def export_interests(
    spark: SparkSession, wh: Warehouse, ds: str, histories: UserHistories, parts: ModelParts
) -> Partition:
    """Write interests/ds.

    Raises
    ------
    WarehouseError
        If there are no histories.
    JobError
        If histories, codes and model do not fit together.
    """
    buckets = histories.buckets
    if not buckets or not histories.info["users"]:
        raise WarehouseError(f"histories/ds={ds}: seen 0 users; allowed: 1 or more; run update_histories again")
    codes = codes_of(wh, parts.codes)
    facts = {
        "model_version": parts.recommender.info["model_version"],
        "tables": parts.codes.info["tables"],
        "buckets": histories.info["buckets"],
        **{name: histories.info[name] for name in ("max_length", "max_days", "lineage")},
        "codes": columns.content(codes),
    }
    with wh.write_partition("interests", ds) as part:
        target = part.path.removeprefix(f"{wh.uri}/")
        task = BucketExport(wh.uri, histories.layers, parts, continued(wh, ds, facts, codes), target)
        # One task a bucket: the model's memory, not the cores, should bound what runs at once.
        todo = spark.createDataFrame([(name,) for name in buckets], "bucket string").repartitionByRange(
            len(buckets), "bucket"
        )
        done = todo.mapInArrow(task, RESULT).collect()
        errors = [row.error for row in done if row.error]
        if errors:
            raise JobError(errors[0])
        part.rows = sum(row.users for row in done)
        shared = ("k", "dim", "merge", "scale", "shift_days", "shift_strength")
        part.info |= facts | {name: done[0][name] for name in shared}
        part.info |= {"keep_from": histories.info["keep_from"], "touched_users": sum(row.touched for row in done)}
        if part.rows != histories.info["users"]:
            raise WarehouseError(
                f"interests/ds={ds}: seen {part.rows:,} users; allowed: {histories.info['users']:,}, those of "
                f"histories/ds={ds}; run export_interests again"
            )
    return wh.partition("interests", ds)


def continued(wh: Warehouse, ds: str, facts: Mapping[str, Any], codes: Codes) -> Kept | None:
    """Newest interests before ``ds`` by the same model and settings, if the day's log continues theirs."""
    before, same = wh.latest("interests", until=ds, strict=True), facts.keys() - {"lineage", "codes", "tables"}
    if before is None or any(before.info[name] != facts[name] for name in same):
        return None
    logs, partition = lineage(accepted_chain(wh, ds)), wh.find("item_codes", before.ds)
    if before.info["lineage"] != logs.get(before.ds) or partition is None:
        return None
    tables: list[str] = before.info["tables"]
    if tables != facts["tables"][: len(tables)]:  # what its codes stood for; a new generation changes none of them
        return None
    old = codes_of(wh, partition)
    if before.info["codes"] != columns.content(old) or len(old) > len(codes):
        return None
    try:
        layers = UserHistories.find(wh, before.ds).layers
    except WarehouseError:  # removed, or an older day that they are built on was run again
        return None
    return Kept(before, layers, np.flatnonzero((old != codes[: len(old)]).any(1)))


def codes_of(wh: Warehouse, codes: Partition) -> Codes:
    """Generation and codes of each item, of shape (n, 1 + layers)."""
    return np.column_stack([columns.column(wh, codes, "generation"), columns.vectors(wh, codes, "codes")])


if __name__ == "__main__":
    cli.run(main)
