"""Generated lines of CSV and JSON for import_events: the good ones come in as they are, each other one is told."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks import bad_input
from jobs.import_events import with_day
from jobs.platform.sources import SOURCES
from jobs.platform.sources.shape import Given
from jobs.platform.spark import session

_HEAD = b"user_id,item_id,timestamp"


def import_lines(count: int, random_seed: int) -> tuple[int, list[str]]:
    """Lines through the readers of CSV and JSON lines, half of them each, a good one after each of them."""
    half = -(-count // 2)
    wrong = []
    for source, near in (("csv", _near_csv()), ("jsonl", _near_json())):
        odd = bad_input.collect(st.one_of(near, st.binary(max_size=40)).map(_one_line), half, random_seed)
        wrong += [f"imported line: {source}: {text}" for text in _judge(source, odd)]
    return 2 * half, wrong


def _judge(source: str, odd: list[bytes]) -> list[str]:
    good = [_good(source, number) for number in range(len(odd))]
    lines = [line for pair in zip(good, odd, strict=True) for line in pair]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"lines.{source}"
        path.write_bytes(b"\n".join([_HEAD, *lines] if source == "csv" else lines))
        rows = with_day(SOURCES[source].find(Given(events=str(path))).events(session("bad lines"))).collect()
    wrong = []
    known = {f"good-{number}": ("item", number) for number in range(len(odd))}
    come = {row.user_id: (row.item_id, row.timestamp) for row in rows if row.reason is None}
    if come.items() & known.items() != known.items():
        wrong.append(f"good lines were lost or changed: {sorted(known.items() - come.items())[:3]}")
    blank = sum(_is_blank(source, line) for line in odd)
    if len(rows) != len(lines) - blank:
        wrong.append(f"{len(lines) - blank} lines became {len(rows)} rows")
    for row in rows:
        if row.reason is None and not (row.user_id and row.item_id and row.timestamp is not None):
            wrong.append(f"let through {row}")
        elif row.reason is not None and (not row.column_name or row.row is None or row.file != f"lines.{source}"):
            wrong.append(f"does not tell where or what: {row}")
    return wrong


def _good(source: str, number: int) -> bytes:
    if source == "csv":
        return f"good-{number},item,{number}".encode()
    return json.dumps({"user_id": f"good-{number}", "item_id": "item", "timestamp": number}).encode()


def _is_blank(source: str, line: bytes) -> bool:
    """Whether a line is none: Spark skips it in CSV where nothing but control characters and blanks is in it."""
    return not line.strip(b" ") if source == "jsonl" else all(byte <= 0x20 for byte in line)


def _one_line(line: bytes) -> bytes:
    return line.replace(b"\n", b" ").replace(b"\r", b" ")


def _near_csv() -> st.SearchStrategy[bytes]:
    field = st.sampled_from(
        ["", "a", '"', '""', '"a', 'a"', '"a,b"', '"a""b"', "1", "-1", "1e999", "NaN", "2024-01-01", "\\"]
    )
    return st.lists(field, max_size=5).map(lambda fields: ",".join(fields).encode())


def _near_json() -> st.SearchStrategy[bytes]:
    values: st.SearchStrategy[Any] = st.sampled_from(
        [None, "", "a", 1, -1, 1e300, True, [], {}, "2024-01-01", "\u0000", "12:30"]
    )
    keys = st.sampled_from(["user_id", "item_id", "timestamp", "weight", "seq", "other"])
    whole = st.dictionaries(keys, values).map(lambda row: json.dumps(row).encode())
    cut = st.builds(lambda line, end: line[:end], whole, st.integers(0, 60))
    return st.one_of(whole, cut, st.builds(lambda a, b: a + b, whole, whole))
