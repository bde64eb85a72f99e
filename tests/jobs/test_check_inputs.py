"""Bad input ends in one message or in quarantine; the catalogue only grows; reruns give the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from jobs.check_inputs import Report, check_inputs, find_inputs
from jobs.platform.catalog import SUPERSEDED
from jobs.platform.errors import ContractBreach, WarehouseError
from jobs.platform.lineage import accepted_chain
from jobs.platform.profile import ContractConfig
from jobs.platform.warehouse import Warehouse

Check = Callable[..., Report]
Put = Callable[..., Path]
At = Callable[..., int]

D1, D2, D3 = "2024-02-28", "2024-02-29", "2024-03-01"
LENIENT = ContractConfig(max_bad_share=0.99)
ITEMS = [{"item_id": f"i{n}", "title": f"Thing {n}"} for n in range(6)]


@pytest.fixture
def check(spark: SparkSession, warehouse: Warehouse) -> Check:
    def run(ds: str, contract: ContractConfig = LENIENT) -> Report:
        return check_inputs(spark, warehouse, ds, contract, find_inputs(warehouse, ds))

    return run


def catalog(warehouse: Warehouse, ds: str) -> dict[str, dict[str, Any]]:
    table = warehouse.read(warehouse.partition("catalog", ds))
    assert table["item_index"].to_pylist() == list(range(table.num_rows))
    return {row["item_id"]: row for row in table.to_pylist()}


def events(warehouse: Warehouse, ds: str) -> list[tuple[Any, ...]]:
    """Accepted events of a partition as (user, item id, timestamp)."""
    names = {row["item_index"]: name for name, row in catalog(warehouse, ds).items()}
    rows = warehouse.read(warehouse.partition("accepted_events", ds)).to_pylist()
    return sorted((row["user_id"], names[row["item_index"]], row["timestamp"]) for row in rows)


def quarantine(warehouse: Warehouse, ds: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    rows = warehouse.read(warehouse.partition("quarantine", ds)).to_pylist()
    return [(r["table_name"], r["column_name"], r["reason"], json.loads(r["row"])) for r in rows]


def test_the_first_run_takes_all_days_up_to_its_own(
    check: Check, day: Put, put_items: Put, warehouse: Warehouse, at: At
) -> None:
    put_items(ITEMS)
    day(D1, ["i0", "i1"])
    day(D2, ["i2", "i0"])
    day(D3, ["i3"])
    report = check(D2)
    assert (report.days, report.events, report.accepted, report.catalog, report.new_items) == (2, 4, 4, 6, 6)
    assert report.quarantined == {}
    assert events(warehouse, D2) == sorted(
        [("u0", "i0", at(D1, 0)), ("u1", "i1", at(D1, 1)), ("u0", "i2", at(D2, 0)), ("u1", "i0", at(D2, 1))]
    )
    rows = catalog(warehouse, D2)
    assert [rows[f"i{n}"]["first_ds"] for n in range(4)] == [D1, D1, D2, D2]  # i3: no event yet
    table = warehouse.read(warehouse.partition("accepted_events", D2))
    assert dict(zip(table.column_names, table.schema.types, strict=True)) == {
        "user_id": pa.string(),
        "item_index": pa.int32(),
        "timestamp": pa.int64(),
        "seq": pa.int32(),
        "event": pa.string(),
        "weight": pa.float32(),
        "arrived": pa.string(),
    }
    assert set(table["arrived"].to_pylist()) == {D1, D2}
    assert pc.unique(table["weight"]).to_pylist() == [1.0]
    assert quarantine(warehouse, D2) == []


def test_the_next_run_takes_the_days_after(
    check: Check, day: Put, put_events: Put, put_items: Put, warehouse: Warehouse, at: At
) -> None:
    put_items(ITEMS[:3])
    day(D1, ["i0", "i1"])
    check(D1)
    day(D2, ["i1"])
    row = {"user_id": "u", "item_id": "i2", "timestamp": at(D3), "weight": 2.5, "seq": 1, "event": "view"}
    put_events(D3, [row], weight=pa.float64())  # days may differ in width and in optional columns
    put_items([{"item_id": "i1", "title": "New\u00a0 \ttitle", "category": " "}, *ITEMS[2:5]])  # i0 is gone
    report = check(D3)
    assert (report.days, report.accepted, report.catalog, report.new_items) == (2, 2, 5, 2)
    before, after = catalog(warehouse, D1), catalog(warehouse, D3)
    assert {name: after[name]["item_index"] for name in before} == {n: r["item_index"] for n, r in before.items()}
    assert after["i0"] == before["i0"]  # vanished: it keeps its row
    assert (after["i1"]["title"], after["i1"]["text"]) == ("New title", "New title")
    assert after["i1"]["text_hash"] != before["i1"]["text_hash"]
    assert (after["i1"]["category"], after["i1"]["first_ds"]) == (None, D1)
    assert {after[name]["first_ds"] for name in ("i3", "i4")} == {D3}
    assert {after[name]["item_index"] for name in ("i3", "i4")} == {3, 4}
    rows = warehouse.read(warehouse.partition("accepted_events", D3)).to_pylist()
    facts = [(r["seq"], r["event"], r["weight"]) for r in sorted(rows, key=lambda r: r["timestamp"])]
    assert facts == [(None, None, 1.0), (1, "view", 2.5)]
    assert [p.ds for p in accepted_chain(warehouse, D3)] == [D1, D3]


def test_events_may_come_late_by_so_many_days(
    check: Check, put_events: Put, put_items: Put, warehouse: Warehouse, at: At
) -> None:
    put_items([{"item_id": "a", "title": "A"}, {"item_id": "b", "title": "B"}])
    late = [{"user_id": "u", "item_id": "a", "timestamp": at(D3, -seconds)} for seconds in (0, 1, 86_400, 86_401)]
    put_events(D3, late)
    report = check(D3, replace(LENIENT, max_late_days=1))
    assert report.quarantined == {"events.timestamp: null or outside its day (contract.max_late_days)": 1}
    rows = warehouse.read(warehouse.partition("accepted_events", D3)).to_pylist()
    assert [row["timestamp"] for row in rows] == [at(D3, -86_400), at(D3) - 1, at(D3)]
    assert {row["arrived"] for row in rows} == {D3}


def test_bad_rows_go_to_quarantine_with_a_reason(
    check: Check, put_events: Put, put_items: Put, warehouse: Warehouse, at: At
) -> None:
    put_items(
        [
            *ITEMS,
            {"item_id": None, "title": "x"},
            {"item_id": "", "title": "y"},
            {"item_id": "e", "title": " \t"},
        ]
    )
    good = {"user_id": "u", "item_id": "i0", "timestamp": at(D1, 5), "weight": 1.0}
    put_events(
        D1,
        [
            good,
            good | {"user_id": None},
            good | {"user_id": "  "},
            good | {"item_id": None},
            good | {"item_id": ""},
            good | {"timestamp": None},
            good | {"timestamp": at(D1) - 1},
            good | {"timestamp": at(D2)},
            good | {"item_id": "nobody"},
            good | {"item_id": "e"},
            good | {"weight": -1.0},
            good | {"weight": float("nan")},
            good | {"weight": None},
            good | {"timestamp": at(D1)},
            good | {"timestamp": at(D2) - 1},
        ],
    )
    report = check(D1)
    assert report.quarantined == {
        "events.item_id: its row in the catalogue is in quarantine": 1,
        "events.item_id: no row in the catalogue": 1,
        "events.item_id: null or empty": 2,
        "events.timestamp: null or outside its day (contract.max_late_days)": 3,
        "events.user_id: null or empty": 2,
        "events.weight: negative or not a number": 2,
        "items.item_id: null or empty": 2,
        "items.title: null or empty": 1,
    }
    assert report.accepted == 4
    assert warehouse.partition("quarantine", D1).info["counts"] == report.quarantined
    rows = quarantine(warehouse, D1)
    assert len(rows) == 14
    unknown = {row["item_id"]: reason for _, column, reason, row in rows if "in the catalogue" in reason}
    assert unknown == {"nobody": "no row in the catalogue", "e": "its row in the catalogue is in quarantine"}
    assert len(warehouse.partition("quarantine", D1).files) == 1


def test_text_that_is_not_utf_8_goes_to_quarantine(
    check: Check, put_events: Put, put_items: Put, warehouse: Warehouse, at: At
) -> None:
    """As another tool may write it; every later reader would stop at it."""
    good = {"user_id": "u", "item_id": "i0", "event": "buy", "timestamp": at(D1)}
    broken = [good | {name: "?"} for name in ("user_id", "item_id", "event")]
    for path in (put_events(D1, [good, *broken]), put_items([*ITEMS, {"item_id": "?", "title": "A title"}])):
        table = pq.read_table(path, partitioning=None)
        for number, name in enumerate(table.column_names):
            if table.schema.field(name).type == pa.string():
                texts = [text and text.replace("?", "\xef").encode("latin-1") for text in table[name].to_pylist()]
                table = table.set_column(number, name, pa.array(texts, pa.binary()).view(pa.string()))
        pq.write_table(table, path)
    report = check(D1)
    assert report.quarantined == {
        **{f"events.{name}: not UTF-8": 1 for name in ("event", "item_id", "user_id")},
        "items.item_id: not UTF-8": 1,
    }
    assert report.accepted == 1 and len(quarantine(warehouse, D1)) == 4
    assert set(catalog(warehouse, D1)) == {item["item_id"] for item in ITEMS}


def test_a_breach_stops_the_run(check: Check, put_events: Put, put_items: Put, warehouse: Warehouse, at: At) -> None:
    put_items(ITEMS)
    good = {"user_id": "u", "item_id": "i0", "timestamp": at(D1)}
    put_events(D1, [good, good, good | {"user_id": None}, good | {"item_id": "nobody"}])
    with pytest.raises(ContractBreach) as caught:
        check(D1, ContractConfig(max_bad_share=0.4))
    assert str(caught.value) == (
        f"table events, partition ds={D1}: seen 2 bad of 4 rows (column item_id: 1 no row in the catalogue, column "
        "user_id: 1 null or empty); allowed: a share of 0.4 (contract.max_bad_share); "
        f"the bad rows are in quarantine/ds={D1}"
    )
    assert warehouse.partitions("accepted_events") == []
    assert warehouse.partitions("catalog") == []
    assert len(quarantine(warehouse, D1)) == 2


def test_a_bad_day_does_not_hide_among_good_ones(check: Check, day: Put, put_items: Put, warehouse: Warehouse) -> None:
    put_items(ITEMS)
    day(D1, ["i0"] * 97)
    day(D2, ["i1", "nobody", "nobody"])  # 2 of 100 rows in all
    with pytest.raises(ContractBreach) as caught:
        check(D2, ContractConfig(max_bad_share=0.1))
    assert str(caught.value).startswith(
        f"table events, partition ds={D2}: seen 2 bad of 3 rows (column item_id: 2 no row in the catalogue); "
        "allowed: a share of 0.1"
    )
    assert warehouse.partitions("accepted_events") == []


def test_the_run_of_the_next_day_does_not_let_a_refused_day_in(
    check: Check, day: Put, put_events: Put, put_items: Put, warehouse: Warehouse
) -> None:
    put_items(ITEMS)
    day(D1, ["i0", "nobody", "nobody", "i1"])
    day(D2, ["i1", "i2", "nobody"])
    day(D3, ["i0"] * 97)  # with it 1 of 100 rows
    strict = ContractConfig(max_bad_share=0.1)
    check(D1)
    message = rf"^table events, partition ds={D2}: seen 1 bad of 3 rows \(column item_id: 1 no row in the catalogue\)"
    with pytest.raises(ContractBreach, match=message):
        check(D3, strict)
    day(D2, ["i1", "i2"])
    with pytest.raises(ContractBreach, match=f"table events, partition ds={D2}: seen 2 good rows; allowed: 3 or more"):
        check(D3, replace(strict, min_events=3))
    assert warehouse.partitions("accepted_events") == [D1]
    put_events(D2, [])  # a day without events is none
    assert check(D3, replace(strict, min_events=3)).accepted == 97


def test_older_rows_of_items_are_set_aside_without_a_breach(
    check: Check, day: Put, put_items: Put, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.platform.quarantine.MAX_ROWS", 3)
    versions = [row | {"title": f"Name {n}", "updated_at": n} for row in ITEMS for n in range(2)]
    put_items([*versions, {"item_id": "e", "title": " "}])
    day(D1, ["i0"])
    report = check(D1, ContractConfig(max_bad_share=0.1))
    assert report.quarantined == {f"items.item_id: {SUPERSEDED}": 6, "items.title: null or empty": 1}
    assert {row["title"] for row in catalog(warehouse, D1).values()} == {"Name 1"}
    kept = [(column, row["title"]) for _, column, _, row in quarantine(warehouse, D1)]
    assert sorted(kept) == [("item_id", "Name 0"), ("item_id", "Name 0"), ("title", " ")]
    with pytest.raises(ContractBreach, match=r"table items: seen 1 bad of 13 rows \(column title: 1 null or empty\)"):
        check(D1, ContractConfig(max_bad_share=0.01))


def test_folders_that_are_no_days_are_ignored(
    check: Check, day: Put, put_events: Put, put_items: Put, warehouse: Warehouse
) -> None:
    put_items(ITEMS)
    day(D1, ["i0", "i1"])
    for folder in ("2024-1-1", "20230101", "2024-02-30", "2024-01-01x"):
        put_events(folder, [{"user_id": "stray", "item_id": "i0", "timestamp": 0}])
    assert find_inputs(warehouse, D1).days == {D1: 2}
    assert check(D1).events == 2


def test_a_day_with_too_few_good_rows_is_a_breach(check: Check, day: Put, put_items: Put) -> None:
    put_items(ITEMS)
    day(D1, ["i0", "i1", "i2"])
    day(D2, ["i0", "nobody"])
    with pytest.raises(ContractBreach, match=f"table events, partition ds={D2}: seen 1 good rows; allowed: 2 or more"):
        check(D2, ContractConfig(max_bad_share=0.5, min_events=2))


def test_a_day_that_comes_after_a_later_one_stops_the_next_run_until_both_were_run(
    check: Check, day: Put, put_items: Put, warehouse: Warehouse
) -> None:
    put_items(ITEMS)
    day(D1, ["i0"])
    check(D1)
    day(D3, ["i1"])
    check(D3)
    day(D2, ["i2"])
    day("2024-03-02", ["i3"])
    with pytest.raises(WarehouseError, match=f"seen 1 days, ds={D2} to {D2}, that were brought in"):
        find_inputs(warehouse, "2024-03-02")
    for ds in (D2, D3, "2024-03-02"):
        check(ds)
    assert [part.ds for part in accepted_chain(warehouse, "2024-03-02")] == [D1, D2, D3, "2024-03-02"]


def test_a_rerun_gives_the_same_bytes(check: Check, day: Put, put_items: Put, warehouse: Warehouse) -> None:
    put_items(ITEMS)
    day(D1, ["i0", "i1", "nobody", "i2"])

    def digests() -> dict[str, str]:
        return {
            f"{table}/{name}": hashlib.sha256((Path(part.path) / name).read_bytes()).hexdigest()
            for table in ("accepted_events", "catalog", "quarantine")
            for part in [warehouse.partition(table, D1)]
            for name in part.files
        }

    check(D1)
    first = digests()
    info = warehouse.partition("accepted_events", D1).info
    check(D1)
    assert digests() == first
    assert warehouse.partition("accepted_events", D1).info == info
