"""Embed the texts of the catalogue that have no state yet.

Reads ``catalog/ds`` and the newest encoder. Writes ``text_vectors/ds``: text_hash and state (16-bit floats) of each
distinct text that this encoder has not embedded on an earlier day. Products with the same text share a state.

Spark hands a slice of the texts to a task; a Python worker loads the encoder once. A slice is a file, written as soon
as it is done. After a crash or a kill the next run takes over the finished files, so each worker repeats one slice at
most. The demo's 32,385 texts take a minute or two on two cores the first time, and seconds on other days.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.platform import cli, tracking
from jobs.platform.file_progress import file_progress
from jobs.platform.profile import load_profile
from jobs.platform.spark import session
from jobs.platform.text_states import RESULT, SliceEmbedding, encoder_states, state_table
from jobs.platform.warehouse import Partition, Warehouse

SLICE_TEXTS = 1024  # what a killed worker loses at most


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Embed the texts of the catalogue that the encoder has not embedded yet.

    Writes text_vectors.
    """
    load_profile(profile)
    wh = Warehouse(warehouse)
    catalog = wh.partition("catalog", ds)
    encoder = wh.latest("encoder", until=ds) or wh.partition("encoder", ds)
    tracking.preload()
    spark = session("embed_catalog")
    refresh = cli.refresh_id_or_default(refresh_id, ds)
    with tracking.stage("embed_catalog", ds=ds, refresh_id=refresh) as run:
        written = embed_catalog(spark, wh, ds, catalog, encoder)
        run.params({"encoder_version": encoder.info["version"]})
        run.metrics({"items": catalog.rows or 0, "new_texts": written.rows or 0})
    print(f"texts: {written.rows:,} new ones embedded by encoder {encoder.info['version']}")


def embed_catalog(spark: SparkSession, wh: Warehouse, ds: str, catalog: Partition, encoder: Partition) -> Partition:
    """Write text_vectors/ds."""
    texts = new_texts(spark, wh, ds, catalog, encoder)
    count = texts.count()
    unfinished = tuple(wh.unfinished_attempts("text_vectors", ds))
    with wh.write_partition("text_vectors", ds, resumable=True) as part:
        task = SliceEmbedding(wh.uri, encoder, part.path.removeprefix(f"{wh.uri}/"), unfinished)
        if count:
            # Ordered by text, those that begin alike come together, and slices are the same on every rerun.
            slices = -(-count // SLICE_TEXTS)
            sliced = texts.repartitionByRange(slices, "text").sortWithinPartitions("text")
            with file_progress(wh, task.target, slices, "texts"):
                done = sliced.mapInArrow(task, RESULT).collect()
            part.rows = sum(row.texts for row in done)
            kept = part.rows - sum(row.embedded for row in done)
            if kept:
                print(f"texts: {kept:,} of {part.rows:,} were embedded by a run that did not end well")
        else:  # Spark may run no task at all for an empty table
            part.write_table(state_table(pa.array([], pa.string()), np.empty((0, task.dim(wh)))))
        part.info |= {"encoder_version": encoder.info["version"], "dim": task.dim(wh)}
    return wh.partition("text_vectors", ds)


def new_texts(spark: SparkSession, wh: Warehouse, ds: str, catalog: Partition, encoder: Partition) -> DataFrame:
    """Distinct texts of the catalogue (text_hash, text) without a state of this encoder before ``ds``."""
    texts = spark.read.parquet(catalog.path).groupBy("text_hash").agg(F.first("text").alias("text"))
    before = encoder_states(wh, encoder, before=ds)
    if before:
        # The schema is given because Spark cannot infer it: it knows no 16-bit floats, the type of the states.
        known = spark.read.schema("text_hash string").parquet(*(partition.path for partition in before))
        texts = texts.join(known, "text_hash", "left_anti")
    return texts.cache()


if __name__ == "__main__":
    cli.run(main)
