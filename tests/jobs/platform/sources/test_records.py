"""What a CSV writer writes is read back, and a slip costs its own line."""

from __future__ import annotations

import csv
import gzip
import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.platform.sources.records import MOST_LINES, read_records, records
from jobs.platform.storage import Storage

# What is special, and what is not; a lone return would be a line's end for those who read it, but not for the writer.
TEXT = st.text(st.sampled_from('a "\n,;é'), max_size=8)
ROWS = st.lists(st.lists(TEXT, min_size=2, max_size=3), max_size=6)


def read(text: str, separator: str = ",") -> list[list[str] | str]:
    """Fields of good records, text of the others."""
    lines = io.StringIO(text, newline="")
    return [row if fields is None else fields for fields, row in records(iter(lines), separator)]


@given(ROWS, st.sampled_from(",;"), st.sampled_from(["\n", "\r\n"]))
def test_round_trip(rows: list[list[str]], separator: str, end: str) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=separator, lineterminator=end).writerows(rows)
    assert read(out.getvalue(), separator) == rows


@pytest.mark.parametrize(
    "slip",
    ['x,"open', 'x,"open, and ""quoted""', 'x,"shut" too early', '"', 'x,"a"b"'],
)
def test_a_slip_costs_its_line(slip: str) -> None:
    before, after = ["a,b", 'c,"d\ne"'], ["f,g", '"h, i",j', 'k,5" pipe']
    good = [["a", "b"], ["c", "d\ne"], ["f", "g"], ["h, i", "j"], ["k", '5" pipe']]
    found = read("\n".join([*before, slip, *after]))
    assert found == [*good[:2], slip, *good[2:]]


def test_a_quote_is_not_looked_for_without_end() -> None:
    lines = [f"{n},b" for n in range(3 * MOST_LINES)]
    assert read("\n".join(['a,"open', *lines, 'z,"shut"'])) == [
        'a,"open',
        *(line.split(",") for line in lines),
        ["z", "shut"],
    ]
    longest = "\n".join("b" for _ in range(MOST_LINES))
    assert read(f'a,"{longest}"\nc,d') == [["a", longest], ["c", "d"]]


def test_nothing() -> None:
    assert read("") == read("\n\r\n\n") == []


def test_a_file_that_breaks_off_is_named(tmp_path: Path) -> None:
    numbers = random.Random(0)
    whole = gzip.compress("".join(f"{numbers.random()},x\n" for _ in range(20_000)).encode())
    (tmp_path / "a.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match=r"a.csv.gz: Truncated compressed stream"):
        list(read_records(Storage(str(tmp_path)), "a.csv.gz", ",", 2, {"item_id": 0}))
