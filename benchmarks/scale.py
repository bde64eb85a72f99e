"""A day's cost beside the history's: check_inputs and update_histories on up to 100 M events.

Usage::

    make bench-scale                              1 M, 10 M and 100 M events
    make bench-scale ARGS="--events 1000000"

The log is copies of The Complete Journey's households, each with products exchanged among those of about equal
popularity, so that popularity, history lengths and repeat rates stay real. All its days but the last are one first
run, in which update_histories builds the histories from the whole log. Then the last day is run, with as many events
as one, two, four and eight real days have. ``events`` are those that a run takes, ``of`` all there are. ``read`` is
one process that reads all histories. ``joins`` are those of both jobs on the whole log, without all else that they do,
by Spark in a warm session and by DuckDB.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.job_runs import run_job
from benchmarks.report import Check, Results
from benchmarks.scale_joins import BUCKETS, MAX_LENGTH, duckdb_joins, spark_joins
from benchmarks.scale_log import Copies, RealLog
from jobs.platform.user_histories import UserHistories
from jobs.platform.warehouse import Warehouse

REAL_DAYS = (1, 2, 4, 8)  # whose events the last day has
JOBS = ("check_inputs", "update_histories")


def main(
    events: Annotated[list[int], typer.Option(help="Sizes of the log.")] = [1_000_000, 10_000_000, 100_000_000],  # noqa: B006
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "scale",
    folder: Annotated[Path | None, typer.Option(help="Where the warehouses are written for the time being.")] = None,
) -> None:
    """Run the jobs on logs of each size and write benchmarks/results/NAME.json."""
    results = Results(name)
    with tempfile.TemporaryDirectory(dir=folder) as root:
        real = RealLog.imported(Path(root) / "real")
        profile = Path(root) / "scale.yaml"
        settings = {"histories": {"buckets": BUCKETS, "max_length": MAX_LENGTH}, "contract": {"drift": "accept"}}
        profile.write_text(json.dumps(settings))
        for size in events:
            wh = Warehouse(f"{root}/warehouse")
            measure(results, wh, Copies(real, size), profile, Path(root))
            shutil.rmtree(wh.uri)
            results.checks = checks(results.rows)
            results.write()
    results.show()


def measure(results: Results, wh: Warehouse, log: Copies, profile: Path, root: Path) -> None:
    """The first run, days of several sizes, and DuckDB, on one log."""
    real, days = log.real, log.real.days[:-1]  # the log breaks off on its last day
    before, last = days[-2:]
    shutil.copytree(root / "real" / "items", Path(wh.uri) / "items")
    size = log.write(wh, days[:-1])
    for job in JOBS:
        results.add(
            {"name": job, "run": "first", "events": size, "of": size, **run_job(job, wh, before, profile, root)}
        )
    catalog = wh.partition("catalog", before).arrow_path
    for name, joins in (("joins by Spark", spark_joins), ("joins by DuckDB", duckdb_joins)):
        results.add({"name": name, "of": size, **joins(wh, catalog, root)})
    start = time.perf_counter()
    users = UserHistories.find(wh, before).read().num_rows
    results.add({"name": "read", "of": size, "users": users, "seconds": time.perf_counter() - start})
    for count in REAL_DAYS:
        new = log.write_day(wh, last, real.of_days(days[-count], last))
        for job in JOBS:
            figures = run_job(job, wh, last, profile, root)
            results.add({"name": job, "run": "day", "events": new, "of": size, **figures})


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """A day beside a rebuild; growth with the day's events; Spark beside DuckDB; memory of the driver."""
    made = []
    for size in dict.fromkeys(row["of"] for row in rows):
        here = [row for row in rows if row["of"] == size]
        first = {row["name"]: row["seconds"] for row in here if row.get("run") == "first"}
        for job in JOBS:
            days = [row for row in here if (row["name"], row.get("run")) == (job, "day")]
            share = days[0]["seconds"] / first[job]
            made.append(Check(f"{size:,} events, {job}: a day by a first run", share, 0.05, share <= 0.05))
            exponent = growth([row["events"] for row in days], [row["seconds"] for row in days])
            made.append(
                Check(f"{size:,} events, {job}: exponent of the day's events", exponent, 1.05, exponent <= 1.05)
            )
        spark, duckdb = (row["seconds"] for row in here if row["name"].startswith("joins"))
        made.append(
            Check(f"{size:,} events: joins by Spark by those of DuckDB", spark / duckdb, 3.0, spark <= 3 * duckdb)
        )
    drivers = {
        size: max(row["driver_mib"] for row in rows if row["of"] == size and "driver_mib" in row)
        for size in dict.fromkeys(row["of"] for row in rows)
    }
    if len(drivers) > 1:
        smallest, largest = drivers[min(drivers)], drivers[max(drivers)]
        made.append(
            Check("Python driver's memory, largest log by smallest", largest / smallest, 1.1, largest <= 1.1 * smallest)
        )
    return made


def growth(events: list[int], seconds: list[float]) -> float:
    """Exponent of the time in the number of events, by least squares of the logarithms."""
    return float(np.polyfit(np.log(events), np.log(seconds), 1)[0])


if __name__ == "__main__":
    typer.run(main)
