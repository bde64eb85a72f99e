from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pytest

from benchmarks.job_runs import spark_figures
from benchmarks.scale import checks, growth
from benchmarks.scale_log import NEIGHBOURS, Copies, RealLog
from jobs.platform.warehouse import Warehouse

DAYS = ["2020-01-01", "2020-01-02"]
START, DAY_SECONDS = 1_577_836_800, 86_400


@pytest.fixture
def real() -> RealLog:
    random = np.random.default_rng(0)
    popularity = np.sort(random.zipf(1.5, 5000) % 100)
    stamps = np.sort(START + random.integers(0, 2 * DAY_SECONDS, 5000))
    ids = np.array([f"item-{number}" for number in range(100)], object)
    return RealLog(random.integers(0, 40, 5000), popularity, stamps, ids, DAYS)


def test_copies_keep_lengths_repeats_and_popularity(real: RealLog, tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    written = Copies(real, 12_500).write(wh, DAYS)
    table = pads.dataset(tmp_path / "events", format="parquet").to_table()
    assert table.num_rows == written == pytest.approx(12_500, rel=0.1)
    users = np.asarray(table["user_id"], object)
    _, lengths = np.unique(users, return_counts=True)
    _, true = np.unique(real.users, return_counts=True)
    assert set(lengths) <= set(true) and len(lengths) > len(true)
    first = np.array([user.startswith("0-") for user in users])
    items = np.array([int(item[5:]) for item in table["item_id"].to_pylist()])
    assert np.abs(items[first] // NEIGHBOURS - real.items // NEIGHBOURS).max() == 0
    assert len(np.unique(items[first])) == len(np.unique(real.items))
    assert not np.array_equal(items[first], real.items)


def test_a_day_may_have_the_events_of_several(real: RealLog, tmp_path: Path) -> None:
    wh, log = Warehouse(str(tmp_path)), Copies(real, 5000)
    assert real.of_days(*DAYS) == slice(0, 5000)
    assert log.write_day(wh, "2020-01-03", real.of_days(*DAYS)) == 5000
    stamps = np.asarray(pads.dataset(tmp_path / "events", format="parquet").to_table(["timestamp"])["timestamp"])
    assert set(stamps // DAY_SECONDS) == {START // DAY_SECONDS + 2}


def test_what_spark_moved_is_read_from_its_log(tmp_path: Path) -> None:
    def task(written: int, spilled: int) -> str:
        moved = {"Shuffle Write Metrics": {"Shuffle Bytes Written": written}, "Disk Bytes Spilled": spilled}
        return json.dumps({"Event": "SparkListenerTaskEnd", "Task Metrics": moved})

    assert spark_figures(tmp_path) == {}
    folder = tmp_path / "eventlog_v2_local-1"
    folder.mkdir()
    lines = [json.dumps({"Event": "SparkListenerLogStart"}), task(2**20, 0), task(2**21, 2**19)]
    (folder / "events_1_local-1").write_text("\n".join(lines))
    assert spark_figures(tmp_path) == {"tasks": 2, "shuffle_mib": 3.0, "spill_mib": 0.5}


def test_checks_say_what_falls_short() -> None:
    assert growth([10, 20, 40], [3.0, 6.0, 12.0]) == pytest.approx(1)
    rows = []
    for size, day in ((100, 1.0), (1000, 9.0)):
        for job in ("check_inputs", "update_histories"):
            rows.append({"name": job, "run": "first", "of": size, "seconds": 100.0, "driver_mib": size})
            for events in (1, 2):
                row = {"name": job, "run": "day", "of": size, "events": events, "seconds": day * events}
                rows.append(row | {"driver_mib": 7.0})
        rows.append({"name": "joins by Spark", "of": size, "seconds": 200.0})
        rows.append({"name": "joins by DuckDB", "of": size, "seconds": 50.0})
    found = {check.name: (round(check.value, 3), check.holds) for check in checks(rows)}
    assert found["100 events, update_histories: a day by a first run"] == (0.01, True)
    assert found["1,000 events, update_histories: a day by a first run"] == (0.09, False)
    assert found["100 events, check_inputs: exponent of the day's events"] == (1.0, True)
    assert found["100 events: joins by Spark by those of DuckDB"] == (4.0, False)
    assert found["Python driver's memory, largest log by smallest"] == (10.0, False)
