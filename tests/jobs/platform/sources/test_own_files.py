"""Files of one's own: every line comes in as it is, or is told with its reason; nothing else happens."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.platform.contracts import EVENTS_FILE
from jobs.platform.errors import JobError, SchemaError
from jobs.platform.sources.own_files import parse_columns
from jobs.platform.sources.shape import TimeUnit

CSV = (
    b"\xef\xbb\xbfcustomer;item_id;ts;weight;colour;seq\r\n"
    b'7;"a;1";1600000000;2.5;red;1\r\n'
    b'8;"say ""hi""";1600000001.9;;;2.0\r\n'
    b"9;b;2020-09-13T12:26:42Z;;;\r\n"
    b"9;b;2020-09-13 14:26:43+02:00;;;\r\n"
    b"\r\n"
    b";c;1600000000;;;\r\n"
    b"10;;1600000000;;;\r\n"
    b"11;d;;;;\r\n"
    b"12;e;12:30;;;\r\n"
    b"13;f;1600000000;heavy;;\r\n"
    b"14;g;1600000000;;;second\r\n"
    b"15;h;1600000000\r\n"
    b"16;i;1600000000;;;;;\r\n"
    b"\xe9;j;1600000000;;;\r\n"
    b'17;"k;1600000000;;;\r\n'
    b"\xc3\xa9;last;1600000000;1;;"
)
BAD_CSV = [
    ("line", "not 6 columns"),
    ("line", "not 6 columns"),
    ("line", "not 6 columns"),
    ("item_id", "missing"),
    ("seq", "no integer"),
    ("timestamp", "missing"),
    ("timestamp", "no time"),
    ("user_id", "missing"),
    ("user_id", "not UTF-8"),
    ("weight", "no number"),
]
COLUMNS = {"user_id": "customer", "timestamp": "ts"}


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_csv_events(read: Callable[..., Any], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(CSV) if name.endswith("gz") else CSV)
    events, items, faults = read("csv", events=str(tmp_path), columns=COLUMNS)
    assert items is None
    assert [tuple(row[name] for name in ("user_id", "item_id", "timestamp", "weight", "seq")) for row in events] == [
        ("7", "a;1", 1600000000, 2.5, 1),
        ("8", 'say "hi"', 1600000001, None, 2),
        ("9", "b", 1600000002, None, None),
        ("9", "b", 1600000003, None, None),
        ("é", "last", 1600000000, 1.0, None),
    ]
    assert sorted((column, reason) for *_, column, reason in faults) == sorted(BAD_CSV)
    assert {file for file, *_ in faults} == {name}
    rows = {row for _, row, *_ in faults}
    assert {"15;h;1600000000", '17;"k;1600000000;;;'} <= rows
    assert any("é" in row for row in rows), "what was not UTF-8 is shown as ISO-8859-1"


def test_csv_items_may_have_lines_in_a_text(read: Callable[..., Any], tmp_path: Path) -> None:
    events = tmp_path / "events.csv"
    events.write_text("user_id,item_id,timestamp\nu,a,1\n")
    items = tmp_path / "items.csv"
    items.write_text(
        "item_id,name,description,image_vector,updated_at\n"
        'a,A,"two\nlines, ""quoted""","[0.5, 2]",2024-01-01 00:00:00\n'
        "b,B,,,\n"
        'c,"open,,,\nd,"D",,,\n'
        "e,E,,[0.5,\n"
        'f,F,,"[0.5,",x\n'
        'g,"open till the end,,,\nh,H,,,\ni,I,,,\n'
    )
    _, found, faults = read("csv", events=str(events), items=str(items), item_columns={"title": "name"})
    assert [tuple(row.values()) for row in found] == [
        ("a", "A", 'two\nlines, "quoted"', [0.5, 2.0], 1704067200),
        ("b", "B", None, None, None),
        ("d", "D", None, None, None),
        ("h", "H", None, None, None),
        ("i", "I", None, None, None),
    ]
    assert [(row, column, reason) for _, row, column, reason in faults] == [
        ('c,"open,,,', "line", "a quote that is not closed, or stands wrong"),
        ("e,E,,[0.5,", "image_vector", "no number"),
        ('f,F,,"[0.5,",x', "updated_at", "no time"),
        ('g,"open till the end,,,', "line", "a quote that is not closed, or stands wrong"),
    ]


def test_csv_files_of_a_folder_may_differ(
    read: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp,user id,user id\nu,a,1,x,y\n")
    (tmp_path / "deep" / "b.tsv").write_text("timestamp\tevent\titem_id\tuser_id\n2\tbuy\tb\tv\n")
    (tmp_path / "notes.txt").write_text("not read")
    events, _, faults = read("csv", events=str(tmp_path))
    assert sorted(tuple(row.values()) for row in events) == [("u", "a", 1, None), ("v", "b", 2, "buy")]
    assert not faults
    assert "events: columns that are not used: user id" in capsys.readouterr().out


def test_json_lines(read: Callable[..., Any], tmp_path: Path) -> None:
    good = [
        '{"who": 12, "item_id": "a", "timestamp": 1600000000123, "weight": 1.5, "more": {"x": [1]}}',
        '{"who": "\u00e9\\n", "item_id": "\\u00e9", "timestamp": "1.6e12", "seq": 3}',
        '{"who": "u", "item_id": "b", "timestamp": "2020-09-13", "event": "buy"}',
    ]
    bad = [
        ('{"who": "u", "item_id": "b"', "line", "not one JSON object"),
        ('{"who": "u"}{"who": "v"}', "line", "not one JSON object"),
        ('{"who": "u"},{"who": "v"}', "line", "not one JSON object"),
        ('["who"]', "line", "not one JSON object"),
        ("null", "line", "not one JSON object"),
        ('{"who": null, "item_id": "b", "timestamp": 1}', "user_id", "missing"),
        ('{"WHO": "u", "item_id": "b", "timestamp": 1}', "user_id", "missing"),
        ('{"who": "u", "item_id": "b", "timestamp": true}', "timestamp", "no time"),
        ('{"who": "u", "item_id": "b", "timestamp": "NaN"}', "timestamp", "no time"),
        ('{"who": "u", "item_id": "b", "timestamp": 1, "weight": [1]}', "weight", "no number"),
        ('{"who": "u", "item_id": "b", "timestamp": 1, "seq": 1e30}', "seq", "no integer"),
    ]
    lines = "\ufeff" + "\n".join([*good, "", *(line for line, *_ in bad)])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode() + b'\n{"who": "\xe9"}'))
    events, _, faults = read("jsonl", events=str(tmp_path), columns={"user_id": "who"}, time_unit=TimeUnit.milliseconds)
    assert [
        tuple(row[name] for name in ("user_id", "item_id", "timestamp", "weight", "event", "seq")) for row in events
    ] == [
        ("12", "a", 1600000000, 1.5, None, None),
        ("é\n", "é", 1600000000, None, None, 3),
        ("u", "b", 1599955200, None, "buy", None),
    ]
    bad.append(('{"who": "\ufffd"}', "line", "not UTF-8"))
    assert faults == sorted(("a.jsonl.gz", *fault) for fault in bad)


def test_json_items(read: Callable[..., Any], tmp_path: Path) -> None:
    events, items = tmp_path / "e.jsonl", tmp_path / "i.jsonl"
    events.write_text('{"user_id": "u", "item_id": "a", "timestamp": 1}')
    items.write_text(
        '{"item_id": "a", "title": "A", "image_vector": [1, 0.5], "updated_at": 5}\n'
        '{"item_id": "b", "title": "B", "image_vector": "x"}\n{"title": "C"}\n'
    )
    _, found, faults = read("jsonl", events=str(events), items=str(items))
    assert [(row["item_id"], row["title"], row["image_vector"], row["updated_at"]) for row in found] == [
        ("a", "A", [1.0, 0.5], 5)
    ]
    assert [(column, reason) for *_, column, reason in faults] == [
        ("image_vector", "no number"),
        ("item_id", "missing"),
    ]


def test_parquet_by_the_users_names(read: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    table = {"user_id": [1.5], "who": ["u"], "item.id": ["a"], "ts": [1_600_000_000_999]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    pq.write_table(pa.table(table), tmp_path / "deep" / "b.parquet")
    names = {"user_id": "who", "item_id": "item.id", "timestamp": "ts"}
    given = {"events": str(tmp_path), "columns": names, "time_unit": TimeUnit.milliseconds}
    events, _, faults = read("parquet", **given)
    assert events == [{"user_id": "u", "item_id": "a", "timestamp": 1600000000}] * 2
    assert not faults


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        (
            "csv",
            b"user_id,item_id,time\n",
            "column timestamp: seen no such column among user_id, item_id, time in .*a.csv",
        ),
        ("csv", b"user_id,item_id,timestamp,timestamp\n", "column timestamp: seen several columns of this name"),
        ("csv", b"", "seen no .csv or .csv.gz or .* file there"),
        ("csv", b"\n\n", "a.csv: seen first line '.*; allowed: UTF-8 text with the names"),
        ("csv", b"\xff\xfeu\x00", "seen first line .*; allowed: UTF-8 text"),
        ("jsonl", None, "--events .*: seen no .jsonl or .* file there; allowed: a .jsonl"),
        ("parquet", None, "--events .*: seen no .parquet file there; allowed: a .parquet file or a folder of them"),
    ],
)
def test_files_that_are_no_source(
    read: Callable[..., Any], tmp_path: Path, source: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(JobError, match=message):
        read(source, events=str(tmp_path))


def test_names_that_are_not_in_the_file(read: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id,timestamp\nu,a,1\n")
    with pytest.raises(
        SchemaError, match=r"column kind: seen no such column .*; allowed: this column, or --columns event="
    ):
        read("csv", events=str(tmp_path), columns={"event": "kind"})


@pytest.mark.parametrize("text", ["user_id", "user_id=", "name=x", "user_id=a,user_id=b"])
def test_columns_that_cannot_be_read(text: str) -> None:
    with pytest.raises(JobError, match=r"--columns: seen '.*'; allowed: OURS=YOURS,OURS=YOURS with each of user_id"):
        parse_columns("columns", text, EVENTS_FILE)


def test_columns() -> None:
    assert parse_columns("columns", "user_id=a b, timestamp = t.s", EVENTS_FILE) == {
        "user_id": "a b",
        "timestamp": "t.s",
    }
    assert parse_columns("columns", None, EVENTS_FILE) == {}
