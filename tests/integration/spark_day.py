"""Two small days in two warehouses, and the Spark jobs on them, in one Spark application.

``python -m tests.integration.spark_day FOLDER PROFILE`` runs them on the master that PYSPARK_SUBMIT_ARGS names.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import check_inputs, encode_items, export_interests, update_histories
from jobs.platform import cli
from jobs.platform.spark import session
from jobs.platform.warehouse import Warehouse
from tests.small_day import newest_space_version, write_encoder
from tests.small_model import DAY, table, write_day

USERS, ITEMS = 40, 300
FIRST = "2020-03-13"  # day of the log; each is a folder that Spark reads


def prepare(folder: Path) -> None:
    """Write a log with its catalogue into ``folder``/log, and what comes before encode_items into ``folder``/model."""
    rows = table(USERS, ITEMS).to_pylist()
    days: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        for item, stamp in zip(row["item_indices"], row["timestamps"], strict=True):
            event = {"user_id": row["user_id"], "item_id": f"item-{item}", "timestamp": stamp}
            ds = str(pa.scalar(stamp, pa.timestamp("s")).as_py().date())
            days.setdefault(ds, []).append(event)
    for ds, events in ((ds, events) for ds, events in days.items() if ds >= FIRST):
        (folder / "log" / "events" / f"ds={ds}").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(events), folder / "log" / "events" / f"ds={ds}" / "part-0.parquet")
    (folder / "log" / "items").mkdir()
    items = [{"item_id": f"item-{item}", "title": f"title {item}"} for item in range(ITEMS)]
    pq.write_table(pa.Table.from_pylist(items), folder / "log" / "items" / "part-0.parquet")
    wh = Warehouse(str(folder / "model"))
    write_encoder(wh, DAY)
    write_day(wh, USERS, ITEMS, space_version=newest_space_version(wh, DAY))
    shutil.rmtree(folder / "model" / "item_codes")


def run(folder: Path, profile: str) -> None:
    """Run the jobs; each ends as its command line does."""
    for name, job in (
        ("log", check_inputs),
        ("log", update_histories),
        ("model", encode_items),
        ("model", export_interests),
    ):
        try:
            cli.run(job.main, ["--warehouse", str(folder / name), "--ds", DAY, "--profile", profile])
        except SystemExit as ended:
            if ended.code:
                raise


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
    session("spark_day").stop()
