"""The joins of check_inputs and update_histories on a whole log, by Spark as the jobs do them and by DuckDB.

Events get their item's number; then each user's newest events become lists, written by bucket. Checks, quarantine,
statistics, tracking and the start of a session are left out of both.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import typer

from jobs.platform.warehouse import Warehouse

BUCKETS, MAX_LENGTH = 16, 1000


def spark_joins(wh: Warehouse, catalog: str, folder: Path) -> dict[str, float]:
    """Seconds in a session of its own, in a process of its own.

    Parameters
    ----------
    wh : Warehouse
        With the table events.
    catalog : str
        Folder of the catalogue's Parquet files.
    folder : Path
        Where the result is written for the time being.
    """
    command = [sys.executable, "-m", "benchmarks.scale_joins", wh.uri, catalog, str(folder / "spark")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    shutil.rmtree(folder / "spark")
    return {"seconds": float(json.loads(done.stdout.splitlines()[-1]))}


def duckdb_joins(wh: Warehouse, catalog: str, folder: Path) -> dict[str, float]:
    """Seconds in this process; see :func:`spark_joins`."""
    import duckdb

    root = folder / "duckdb"
    root.mkdir()
    connection = duckdb.connect(str(root / "base"), config={"temp_directory": str(root / "spill")})
    start = time.perf_counter()
    connection.execute(f"""
        COPY (
            SELECT user_id, item_index, timestamp, 1.0::FLOAT AS weight
            FROM '{wh.uri}/events/*/*.parquet' JOIN '{catalog}/*.parquet' USING (item_id)
        ) TO '{root}/events.parquet' (COMPRESSION zstd);
        COPY (
            SELECT user_id, list(item_index ORDER BY timestamp, tie) AS item_indices,
                list(timestamp ORDER BY timestamp, tie) AS timestamps, list(weight ORDER BY timestamp, tie) AS weights,
                any_value(n_events) AS n_events, hash(user_id) % {BUCKETS} AS bucket
            FROM (
                SELECT *, hash(user_id, item_index, timestamp) AS tie, count(*) OVER (PARTITION BY user_id) AS n_events
                FROM '{root}/events.parquet'
                QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY timestamp DESC, tie DESC) <= {MAX_LENGTH}
            )
            GROUP BY user_id ORDER BY bucket, user_id
        ) TO '{root}/histories' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (bucket));
    """)
    found = {"seconds": time.perf_counter() - start, "peak_mib": psutil.Process().memory_info().rss / 2**20}
    connection.close()
    shutil.rmtree(root)
    return found


def main(warehouse: str, catalog: str, target: str) -> None:
    """Print the seconds that Spark takes."""
    from pyspark.sql import functions as F

    from jobs.platform.daily_events import match_items
    from jobs.platform.spark import session
    from jobs.update_histories import group_events

    rows = sum(pq.read_metadata(file).num_rows for file in Path(warehouse).glob("events/*/*.parquet"))
    spark = session("joins", rows)
    items = spark.read.parquet(catalog)
    spark.range(1).count()  # the session is up
    start = time.perf_counter()
    events = spark.read.parquet(f"{warehouse}/events")
    nothing = F.lit(None)
    events = events.select(
        "user_id",
        "item_id",
        "timestamp",
        F.col("ds").alias("arrived"),
        nothing.cast("int").alias("seq"),
        F.lit(1.0).cast("float").alias("weight"),
        nothing.cast("string").alias("reason"),
        nothing.cast("string").alias("column_name"),
    )
    matched = match_items(events, items, items.limit(0))
    matched.filter("reason IS NULL").drop("item_id", "reason", "column_name").write.parquet(f"{target}/events")
    histories = group_events(spark.read.parquet(f"{target}/events"), MAX_LENGTH, 0, BUCKETS)
    histories.write.partitionBy("bucket").parquet(f"{target}/histories")
    print(json.dumps(time.perf_counter() - start))


if __name__ == "__main__":
    typer.run(main)
