"""Files of one's own come in unchanged, or end in one message; what is there is never lost half-way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs import import_events
from jobs.check_inputs import check_inputs, find_inputs
from jobs.import_events import Summary, import_found
from jobs.platform.errors import ContractBreach, HymirecError, JobError, SchemaError
from jobs.platform.profile import ContractConfig, HistoriesConfig
from jobs.platform.sources import own_parquet
from jobs.platform.sources.shape import Given, readable
from jobs.platform.warehouse import Warehouse
from jobs.update_histories import plan_update, update_histories

ITEMS = {"item_id": ["a", "b"], "title": ["A", "B"]}
GOOD = {"user_id": ["u"], "item_id": ["a"], "timestamp": [0]}
DAY = 86400


@pytest.fixture
def bring(spark: SparkSession, warehouse: Warehouse, tmp_path: Path) -> Callable[..., Summary]:
    """``bring(events, items)``: write both as files and import them."""

    def write(name: str, data: dict[str, Any]) -> str:
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table(data), path)
        return str(path)

    def run(
        events: dict[str, Any], items: dict[str, Any] | None = ITEMS, *, replace: bool = False, **options: Any
    ) -> Summary:
        given = Given(events=write("events", events), items=write("items", items) if items else None, **options)
        return import_found(own_parquet.find(given), warehouse, "parquet", replace=replace)

    return run


def days(warehouse: Warehouse) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for ds in warehouse.partitions("events"):
        part = warehouse.partition("events", ds)
        assert len(part.files) == 1
        found[ds] = warehouse.read(part).to_pylist()
    return found


def test_events_are_split_by_day(bring: Callable[..., Summary], warehouse: Warehouse) -> None:
    events = {
        "user_id": ["u", "v", None],
        "item_id": ["a", "nobody", "b"],
        "timestamp": [DAY - 1, DAY, 3 * DAY],
        "weight": [1.5, float("nan"), None],
        "event": ["buy", None, "view"],
        "seq": pa.array([1, None, 2**40], pa.int64()),
    }
    summary = bring(events)
    assert summary == Summary(3, 2, 3, 3, "1970-01-01", "1970-01-04", 2)
    assert "events: 3 rows, 2 users, 3 items, 3 days from 1970-01-01 to 1970-01-04" in str(summary)
    found = days(warehouse)
    assert sorted(found) == ["1970-01-01", "1970-01-02", "1970-01-04"]
    first = {"user_id": "u", "item_id": "a", "timestamp": DAY - 1, "event": "buy", "weight": 1.5, "seq": 1}
    assert found["1970-01-01"] == [first]
    assert found["1970-01-04"][0]["seq"] is None
    types = warehouse.read(warehouse.partition("events", "1970-01-02")).schema
    assert types.field("weight").type == pa.float32()
    assert types.field("seq").type == pa.int32()
    assert warehouse.read(warehouse.items()).to_pydict() == ITEMS


def test_only_the_days_of_the_file_are_replaced_and_a_rerun_changes_nothing(
    bring: Callable[..., Summary], warehouse: Warehouse
) -> None:
    def digests() -> dict[str, str]:
        return {
            ds: hashlib.sha256(b"".join((Path(part.path) / name).read_bytes() for name in part.files)).hexdigest()
            for ds in warehouse.partitions("events")
            for part in [warehouse.partition("events", ds)]
        }

    both = {"user_id": ["u", "v"], "item_id": ["a", "a"], "timestamp": [0, DAY]}
    bring(both)
    before = digests()
    bring(both)
    assert digests() == before
    bring({"user_id": ["w"], "item_id": ["b"], "timestamp": [DAY + 1]}, {"item_id": ["c"], "title": ["C"]})
    after = digests()
    assert after["1970-01-01"] == before["1970-01-01"]
    assert days(warehouse)["1970-01-02"] == [{"user_id": "w", "item_id": "b", "timestamp": DAY + 1}]
    assert warehouse.read(warehouse.items()).to_pydict() == {"item_id": ["c"], "title": ["C"]}
    bring(both)
    assert {ds: rows[0]["user_id"] for ds, rows in days(warehouse).items()} == {
        "1970-01-01": "u",
        "1970-01-02": "v",
    }


def test_a_part_of_a_day_does_not_replace_the_day(bring: Callable[..., Summary], warehouse: Warehouse) -> None:
    def at(*timestamps: int) -> dict[str, Any]:
        return {"user_id": ["u"] * len(timestamps), "item_id": ["a"] * len(timestamps), "timestamp": list(timestamps)}

    bring(at(0, 1, 2, 3, 4))
    before = days(warehouse)
    message = r"events: seen 1970-01-01 with 2 rows in place of 5; allowed: half of a day's rows or more, .*--replace"
    with pytest.raises(JobError, match=message):
        bring(at(7, 8, DAY))
    assert days(warehouse) == before and list(Path(warehouse.uri, ".import").glob("*/*")) == []
    bring(at(0, 1, 2, DAY))
    assert {ds: len(rows) for ds, rows in days(warehouse).items()} == {"1970-01-01": 3, "1970-01-02": 1}
    bring(at(0), replace=True)
    assert len(days(warehouse)["1970-01-01"]) == 1
    (damaged,) = Path(warehouse.uri, "events", "ds=1970-01-01").glob("*.parquet")
    damaged.write_bytes(b"PAR1")
    bring(at(0, DAY, DAY + 1, DAY + 2))
    assert {ds: len(rows) for ds, rows in days(warehouse).items()} == {"1970-01-01": 1, "1970-01-02": 3}
    damaged.write_bytes(b"PAR1")
    with pytest.raises(JobError, match="events: seen 1970-01-02 with 1 rows in place of 3; allowed"):
        bring(at(0, DAY))


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_ids_and_times_of_other_types(
    bring: Callable[..., Summary], warehouse: Warehouse, unit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = pa.timestamp(unit, "UTC" if unit == "us" else None)
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    times = pa.array([5 * per_second + per_second // 2, DAY * per_second]).cast(kind)
    bring({"user_id": [1, 2], "item_id": pa.array([3, 4], pa.int32()), "timestamp": times, "colour": ["x", "y"]})
    rows = [row for rows in days(warehouse).values() for row in rows]
    assert [tuple(row.values()) for row in rows] == [("1", "3", 5), ("2", "4", DAY)]
    said = capsys.readouterr().out
    assert "events: integer ids become text: user_id, item_id" in said
    assert "events: columns that are not used: colour" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"timestamp": [1.5]},
            "table events, column timestamp: seen type double in events.parquet; allowed: int64 or timestamp",
        ),
        ({"timestamp": ["2024-01-01"]}, "column timestamp: seen type string in events.parquet"),
        (
            {"user_id": [1.0]},
            "column user_id: seen type double in events.parquet; allowed: string or int64 or int32",
        ),
        ({"weight": ["1"]}, "column weight: seen type string in events.parquet; allowed: float or double or"),
    ],
)
def test_bad_types(bring: Callable[..., Summary], warehouse: Warehouse, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        bring({"user_id": ["u"], "item_id": ["a"], "timestamp": [0]} | change)
    assert message in str(caught.value)
    assert not (Path(warehouse.uri) / "events").exists()


@pytest.mark.parametrize("time", [1_600_000_000_000, -1, None])
def test_times_of_no_day(bring: Callable[..., Summary], warehouse: Warehouse, time: int | None) -> None:
    """One in a hundred is set aside, more are refused."""
    times = pa.array([time, *range(99)], pa.int64())
    rows = {"user_id": ["u"] * 100, "item_id": ["a"] * 100, "timestamp": times}
    summary = bring(rows)
    assert summary.rows == 99
    (fault,) = summary.set_aside
    assert (fault.table, fault.column, fault.rows, fault.file) == ("events", "timestamp", 1, "events.parquet")
    assert '"user_id":"u"' in fault.example
    (kept,) = pq.read_table(f"{warehouse.uri}/{summary.record}/part-00000.parquet").to_pylist()
    assert (kept["table_name"], kept["column_name"]) == ("events", "timestamp")
    worse = pa.array([time, time, *range(99)], pa.int64())
    with pytest.raises(ContractBreach, match="seen 2 of 101 rows that cannot be read"):
        bring({"user_id": ["v"] * 101, "item_id": ["a"] * 101, "timestamp": worse})
    assert sum(len(found) for found in days(warehouse).values()) == 99


def test_rows_that_cannot_be_read_are_told_and_kept(
    warehouse: Warehouse, tmp_path: Path, spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    log, goods = tmp_path / "log.csv", tmp_path / "goods.csv"
    lines = [f"u{n % 9},a,{n * 3600}" for n in range(98)]
    log.write_text("\n".join(["who,item_id,timestamp", *lines, "u,a,yesterday", "x" * 2000]))
    goods.write_text("item_id,title\na,A\nb,B\n")
    options: dict[str, Any] = {"events": str(log), "items": str(goods), "columns": "user_id=who", "source": "csv"}
    with pytest.raises(ContractBreach) as caught:
        import_events.main(warehouse.uri, **options)
    said = str(caught.value)
    assert said.startswith(
        "table events: seen 2 of 100 rows that cannot be read (1 events.line: not 3 columns, such as log.csv: xxxx"
    )
    assert "1 events.timestamp: no time, such as log.csv: {" in said and len(said) < 700
    assert "allowed: a share of 0.01 (--max-bad-share)" in said
    assert not warehouse.partitions("events") and not (Path(warehouse.uri) / "items").exists()
    import_events.main(warehouse.uri, **options, max_bad_share=0.02)
    assert "\nset aside, in imports/csv-" in capsys.readouterr().out
    assert sum(len(rows) for rows in days(warehouse).values()) == 98
    (record,) = (Path(warehouse.uri) / "imports").iterdir()
    assert str(record) in said, "the same files have one record"
    rows = pq.read_table(record / "part-00000.parquet").to_pylist()
    assert [(row["table_name"], row["column_name"], row["reason"], row["file"], len(row["row"])) for row in rows] == [
        ("events", "line", "not 3 columns", "log.csv", 1000),
        ("events", "timestamp", "no time", "log.csv", 49),
    ]
    assert json.loads((record / "summary.json").read_text())["set_aside"] == {
        "events.line: not 3 columns": 1,
        "events.timestamp: no time": 1,
    }


def test_missing_columns_and_empty_files(bring: Callable[..., Summary]) -> None:
    with pytest.raises(SchemaError, match="table events, column item_id: seen no such column among user_id, timestamp"):
        bring({"user_id": ["u"], "timestamp": [0]})
    good = {"user_id": ["u"], "item_id": ["a"], "timestamp": [0]}
    with pytest.raises(SchemaError, match="table items, column title: seen no such column among item_id, name"):
        bring(good, {"item_id": ["a"], "name": ["A"]})
    empty = pa.table(good).slice(0, 0)
    with pytest.raises(JobError, match="table events: seen 0 rows that can be read; allowed: 1 or more"):
        bring({name: empty[name] for name in good})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "parquet"}, "--source parquet needs files: seen no events"),
        ({"source": "parquet", "events": "events.parquet"}, "missing partition items: the table has no data yet"),
        ({"source": "completejourney", "events": "x"}, "seen --events; allowed: none: it brings its own data"),
        ({"source": "movielens", "columns": "seq=s"}, "--source movielens: seen --columns; allowed: --data"),
        ({"source": "csv", "item_columns": "name=n"}, "--item-columns: seen 'name=n'; allowed: OURS=YOURS"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table(GOOD), "events.parquet")
    with pytest.raises(HymirecError, match=message):
        import_events.main(warehouse="warehouse", **arguments)


def test_new_events_alone_keep_the_catalogue(bring: Callable[..., Summary], warehouse: Warehouse) -> None:
    bring(GOOD)
    (file,) = (Path(warehouse.uri) / "items").glob("*.parquet")
    before = file.stat()
    summary = bring(GOOD | {"timestamp": [DAY]}, None)
    assert "items:  2 rows, kept as they were" in str(summary)
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "the file was written again"
    assert warehouse.partitions("events") == ["1970-01-01", "1970-01-02"]


def test_a_crash_while_tables_are_written_leaves_the_old_ones(
    bring: Callable[..., Summary], warehouse: Warehouse, spark: SparkSession
) -> None:
    bring(GOOD)
    before = days(warehouse)
    found = own_parquet.find(Given(events=str(Path(warehouse.uri).with_name("events.parquet"))))

    def items(spark: SparkSession) -> DataFrame:
        title = "IF(id = 9 AND rand() >= 0, raise_error('crash'), 'x') AS title"
        return readable(spark.range(10).selectExpr("CAST(id AS string) AS item_id", title))

    with pytest.raises(Exception, match="crash"):
        import_found(replace(found, items=items), warehouse, "parquet")
    assert warehouse.read(warehouse.items()).to_pydict() == ITEMS
    assert days(warehouse) == before
    assert [path.name for path in (Path(warehouse.uri) / ".import").iterdir()] == ["lock"]


def test_items_are_replaced_as_a_whole(bring: Callable[..., Summary], warehouse: Warehouse) -> None:
    bring(GOOD)
    bring(GOOD, {"item_id": ["c"], "title": ["C"]})
    assert warehouse.read(warehouse.items()).to_pydict() == {"item_id": ["c"], "title": ["C"]}
    assert sorted(path.name for path in Path(warehouse.uri).iterdir()) == [".import", "events", "items"]
    assert [path.name for path in (Path(warehouse.uri) / ".import").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("table", "path"),
    [("items", "items"), ("items", "items/part-0.parquet"), ("events", "events/"), ("items", "."), ("events", "link")],
)
def test_the_warehouses_own_tables_are_no_source(
    bring: Callable[..., Summary], warehouse: Warehouse, tmp_path: Path, table: str, path: str
) -> None:
    bring(GOOD)
    root = Path(warehouse.uri)
    (root / "link").symlink_to(root / "events")
    files = {"events": str(tmp_path / "events.parquet"), "items": str(tmp_path / "items.parquet")}
    with pytest.raises(JobError, match=f"--{table} .*: seen the warehouse's own table .*; allowed: files elsewhere"):
        import_events.main(warehouse=warehouse.uri, **files | {table: f"{root}/{path}"})
    assert warehouse.read(warehouse.items()).to_pydict() == ITEMS


def test_a_log_of_thin_days(spark: SparkSession, bring: Callable[..., Summary], warehouse: Warehouse) -> None:
    """Years of days with two events each: one file a day, and the first run reads them all."""
    n_days = 1000
    events = {
        "user_id": [f"u{n % 7}" for n in range(2 * n_days)],
        "item_id": ["a", "b"] * n_days,
        "timestamp": [n // 2 * DAY + n % 2 for n in range(2 * n_days)],
    }
    assert bring(events).days == n_days
    found = warehouse.storage.files("events")
    assert len(found) == n_days == len({name.split("/")[0] for name in found})
    ds = warehouse.partitions("events")[-1]
    report = check_inputs(spark, warehouse, ds, ContractConfig(), find_inputs(warehouse, ds))
    assert (report.days, report.accepted) == (n_days, 2 * n_days)
    config = HistoriesConfig(buckets=2, max_length=2 * n_days)
    written = update_histories(spark, warehouse, ds, config, plan_update(warehouse, ds, config))
    assert (written.info["users"], written.info["events"]) == (7, 2 * n_days)
