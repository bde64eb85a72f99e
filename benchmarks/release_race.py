"""Publishing and reading at once, in processes of their own: readers check every release that they get to see.

Usage::

    python -m benchmarks.release_race write WAREHOUSE NUMBER    publish releases up to this number, one by one
    python -m benchmarks.release_race read WAREHOUSE            open and check the current one until told to stop

A release here is two small tables whose rows all hold the release's number, so that a mixture of two releases shows in
its content as well as in its hashes.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fault_day import DS, Process
from jobs.platform import releases
from jobs.platform.errors import JobError
from jobs.platform.release_draft import new_draft
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

PARTS = ("items", "interests")
_STOP = "stop"  # a file beside the warehouse that ends the readers


@dataclass(frozen=True, slots=True)
class Race:
    """What the readers of a race saw."""

    switches: int
    kills: int
    """Of the publisher, in the middle of its work."""
    reads: int
    distinct: int
    """Different releases that one of the readers saw."""
    wrong: list[str]


def race(folder: Path, switches: int, kills: int, rng: random.Random, readers: int = 1) -> Race:
    """Publish ``switches`` releases while readers check what is current; kill the publisher now and then."""
    warehouse, env = folder / "warehouse", dict(os.environ)
    (folder / _STOP).unlink(missing_ok=True)
    publish(warehouse, 0)
    module = [sys.executable, "-m", "benchmarks.release_race"]
    watching = [Process([*module, "read", str(warehouse)], env) for _ in range(readers)]
    killed = 0
    try:
        while (number := current(warehouse)) < switches:
            writer = Process([*module, "write", str(warehouse), str(switches)], env)
            if killed < kills:
                stop_at = number + rng.randint(1, max(1, 2 * (switches - number) // (kills - killed + 1)))
                while writer.running and current(warehouse) < stop_at:
                    time.sleep(0.002)
                time.sleep(rng.uniform(0, 0.02))
                writer.kill()
                killed += 1
            elif writer.wait():
                raise RuntimeError(f"the publisher ended early:\n{writer.output()[-2000:]}")
    finally:
        (folder / _STOP).touch()
    for reader in watching:
        if reader.wait():
            raise RuntimeError(f"a reader ended early:\n{reader.output()[-2000:]}")
    reports = [json.loads(reader.output().splitlines()[-1]) for reader in watching]
    return Race(
        switches=current(warehouse),
        kills=killed,
        reads=sum(report["reads"] for report in reports),
        distinct=max(report["distinct"] for report in reports),
        wrong=[text for report in reports for text in report["wrong"]],
    )


def current(warehouse: Path) -> int:
    """Number of the current release."""
    return int(Release.open(str(warehouse)).manifest["number"])


def publish(warehouse: Path, number: int) -> None:
    """Publish one release as the job does: a draft, sealed, then the switch."""
    wh = Warehouse(str(warehouse))
    parent = releases.current_id(wh)
    with new_draft(wh) as draft:
        for part in PARTS:
            (draft.folder / part).mkdir()
            pq.write_table(pa.table({"number": [number] * 50}), draft.folder / part / "part-00000.parquet")
        release = draft.seal(DS, parent, {"number": number})
    releases.switch(release)


def write(warehouse: Path, last: int) -> None:
    """Publish the releases after the current one, up to ``last``."""
    for number in range(current(warehouse) + 1, last + 1):
        publish(warehouse, number)


def read(warehouse: Path) -> None:
    """Check the current release again and again; print what was seen as JSON."""
    reads, seen, wrong = 0, set(), []
    while not (warehouse.parent / _STOP).exists():
        try:
            release = Release.open(str(warehouse), full=True)
            rows = {str(n) for part in PARTS for n in release.table(part)["number"].to_pylist()}
            if rows != {str(release.manifest["number"])}:
                wrong.append(f"{release.id} of {release.manifest['number']} holds rows of {sorted(rows)}")
            seen.add(release.id)
        except (JobError, OSError) as error:
            wrong.append(str(error))
        reads += 1
    print(json.dumps({"reads": reads, "distinct": len(seen), "wrong": wrong}))


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        read(Path(sys.argv[2]))
