"""Columns are checked from the files' footers: message with table, column, file, seen and allowed."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from jobs.platform.contracts import (
    EVENTS,
    EVENTS_FILE,
    ITEMS,
    NANOSECONDS,
    FileFacts,
    check_columns,
    read_footers,
    spark_schema,
    type_name,
)
from jobs.platform.errors import SchemaError, WarehouseError

GOOD = {"user_id": "string", "item_id": "string", "timestamp": "int64"}


def facts(**types: str) -> FileFacts:
    return FileFacts("a.parquet", 1, types, frozenset())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (pa.string(), "string"),
        (pa.large_string(), "string"),
        (pa.dictionary(pa.int32(), pa.string()), "string"),
        (pa.timestamp("us", "UTC"), "timestamp"),
        (pa.list_(pa.float32(), 3), "list<float>"),
        (pa.float64(), "double"),
        (pa.float32(), "float"),
        (pa.int32(), "int32"),
        (pa.null(), "null"),
        (pa.date32(), "date32[day]"),
    ],
)
def test_type_names(kind: pa.DataType, name: str) -> None:
    assert type_name(kind) == name


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_a_missing_column(missing: str) -> None:
    types = {name: kind for name, kind in GOOD.items() if name != missing}
    with pytest.raises(SchemaError) as caught:
        check_columns("events", [facts(**GOOD), facts(**types)], EVENTS)
    seen = f"seen no such column among {', '.join(types)} in a.parquet"
    assert str(caught.value).startswith(f"table events, column {missing}: {seen}; allowed: ")


@pytest.mark.parametrize(
    ("column", "kind", "allowed"),
    [
        ("user_id", "int64", "string"),
        ("item_id", "null", "string"),
        ("timestamp", "timestamp", "int64"),
        ("timestamp", "double", "int64"),
        ("weight", "string", "float or double, or no such column"),
        ("seq", "int64", "int32, or no such column"),
        ("event", "int32", "string, or no such column"),
    ],
)
def test_a_wrong_type(column: str, kind: str, allowed: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check_columns("events", [facts(**GOOD | {column: kind})], EVENTS)
    expected = f"table events, column {column}: seen type {kind} in a.parquet; allowed: {allowed}"
    assert str(caught.value) == expected


def test_files_may_differ_in_width_and_in_optional_columns() -> None:
    files = [facts(**GOOD, weight="float"), facts(**GOOD, weight="double"), facts(**GOOD)]
    assert check_columns("events", files, EVENTS) == GOOD | {"weight": "double"}
    assert spark_schema({"a": "string", "b": "list<float>"}) == "`a` string, `b` array<float>"


def test_a_column_of_nulls_has_a_type_where_other_files_have_one() -> None:
    """As pandas writes a month without a single value; Spark would call the file damaged."""
    nothing = facts(**GOOD, event="null")
    assert check_columns("events", [nothing, nothing, facts(**GOOD)], EVENTS) == GOOD
    message = r"column event: seen no type, .*where other files have string in a\.parquet; allowed: string, or no such"
    for files in ([nothing, facts(**GOOD, event="string")], [facts(**GOOD, event="string"), nothing]):
        with pytest.raises(SchemaError, match=message):
            check_columns("events", files, EVENTS)


def test_files_may_not_differ_in_kind() -> None:
    files = [facts(**GOOD), facts(**GOOD | {"timestamp": "timestamp"})]
    with pytest.raises(SchemaError, match="seen int64 and timestamp in different files; allowed: one type"):
        check_columns("events", files, EVENTS_FILE)


def test_footers(tmp_path: Path) -> None:
    data = {"timestamp": pa.array([1, 2], pa.timestamp("ns")), "item_id": ["a", "b"], "title": ["a", "b"]}
    pq.write_table(pa.table(data), tmp_path / "a.parquet")
    pq.write_table(pa.table(data), tmp_path / "b.parquet", use_deprecated_int96_timestamps=True)
    found = read_footers(pafs.LocalFileSystem(), str(tmp_path), ["a.parquet", "b.parquet"])
    assert [file.rows for file in found] == [2, 2]
    assert [sorted(file.nanosecond) for file in found] == [["timestamp"], []]
    assert check_columns("items", found, ITEMS) == {"item_id": "string", "title": "string"}
    types = check_columns("x", found[:1], EVENTS_FILE[2:3])
    assert types == {"timestamp": NANOSECONDS}


def test_a_file_that_is_not_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("user_id,item_id\n")
    with pytest.raises(WarehouseError, match=r"a.parquet: seen a file that is not Parquet"):
        read_footers(pafs.LocalFileSystem(), str(tmp_path), ["a.parquet"])
    pq.write_table(pa.table({"x": [1, 2]}), tmp_path / "b.parquet")
    names = ["a.parquet", "b.parquet"]
    (found,) = read_footers(pafs.LocalFileSystem(), str(tmp_path), names, skip_damaged=True)
    assert (found.name, found.rows) == ("b.parquet", 2)


@pytest.mark.parametrize("second", ["item_id", "ITEM_ID"])
def test_a_column_that_occurs_twice(second: str, tmp_path: Path) -> None:
    """Spark would fail on it without a word about the file."""
    columns = [pa.array(["a"])] * 3
    pq.write_table(pa.Table.from_arrays(columns, ["item_id", "title", second]), tmp_path / "a.parquet")
    found = read_footers(pafs.LocalFileSystem(), str(tmp_path), ["a.parquet"])
    with pytest.raises(SchemaError, match=r"column item_id: seen several columns of this name.* in a.parquet"):
        check_columns("items", found, ITEMS)
