"""Quoted records of a CSV file, whose texts may have several lines, read a line at a time.

A quote that is not closed would swallow all that follows it. So a record that cannot be read costs its first line only:
the lines after it are read anew.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from typing import IO, cast

import pyarrow as pa

from jobs.platform.sources.shape import BYTES, FAULT_COLUMNS, LINE, NO_UTF_8
from jobs.platform.storage import Storage

MOST_LINES = 1000
"""Most lines of a record; a quote that is open for longer is taken for a slip."""
OPEN_QUOTE = "a quote that is not closed, or stands wrong"
_BATCH_ROWS = 8192
_MOST_CHARS = 10_000_000  # of a text; more is no text of an item


def records(lines: Iterator[str], separator: str) -> Iterator[tuple[list[str] | None, str]]:
    """Fields of each record, None where it cannot be read, and its text.

    Parameters
    ----------
    lines : iterator of str
        With their ends.
    separator : str
    """
    waiting: deque[str] = deque()  # lines to be read anew
    while True:
        used: list[str] = []

        def supply(used: list[str] = used) -> Iterator[str]:
            while len(used) < MOST_LINES:
                line = waiting.popleft() if waiting else next(lines, None)
                if line is None:
                    return
                used.append(line)
                yield line

        try:
            fields = next(csv.reader(supply(), delimiter=separator, strict=True), None)
        except csv.Error:
            yield None, used[0].rstrip("\r\n")
            waiting.extendleft(reversed(used[1:]))
            continue
        if fields is None:
            return
        if fields:  # else an empty line
            yield fields, "".join(used).rstrip("\r\n")


def read_records(
    storage: Storage, name: str, separator: str, width: int, places: Mapping[str, int]
) -> Iterator[pa.RecordBatch]:
    """Columns of a CSV file below its first line, with those of jobs.platform.sources.shape.FAULT_COLUMNS.

    Parameters
    ----------
    storage : Storage
    name : str
        The file in it, plain or ``.gz``.
    separator : str
    width : int
        Columns of the file.
    places : mapping of str to int
        Where each column of the result stands in the file.
    """
    csv.field_size_limit(_MOST_CHARS)
    columns = [*places, *FAULT_COLUMNS]
    file = name.rpartition("/")[2]
    kind = "gzip" if name.endswith(".gz") else None
    try:
        with storage.filesystem.open_input_stream(storage.path(name), compression=kind) as stream:
            # A character for each byte, so that a text that is not UTF-8 spoils no other.
            lines = io.TextIOWrapper(cast(IO[bytes], stream), encoding=BYTES, newline="")
            found = itertools.islice(records(lines, separator), 1, None)
            while part := list(itertools.islice(found, _BATCH_ROWS)):
                rows = [_row(fields, text, width, places, file) for fields, text in part]
                yield pa.RecordBatch.from_arrays([pa.array(c, pa.string()) for c in zip(*rows, strict=True)], columns)
    except OSError as error:
        raise OSError(f"{file}: {error}") from error


def _row(
    fields: list[str] | None, text: str, width: int, places: Mapping[str, int], file: str
) -> tuple[str | None, ...]:
    """A row of the result: values, file, row, column_name, reason."""
    row = text.encode(BYTES).decode(errors="replace")
    nothing = [None] * len(places)
    if fields is None:
        return (*nothing, file, row, LINE, OPEN_QUOTE)
    if len(fields) != width:
        return (*nothing, file, row, LINE, f"not {width} columns")
    values: list[str | None] = []
    for ours, place in places.items():
        try:
            values.append(fields[place].encode(BYTES).decode() or None)
        except UnicodeDecodeError:
            return (*nothing, file, row, ours, NO_UTF_8)
    return (*values, file, row, None, None)
