"""Make the footer of a Parquet file reproducible.

Spark's Parquet writer lists the encodings of each column chunk in the order of a Java hash set of enums,
which differs from one JVM to the next: two runs write equal data and unequal bytes. The list's order has no
meaning, so it is sorted in place; nothing moves in the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

from jobs.platform.errors import WarehouseError

_MAGIC = b"PAR1"
_ENCODINGS = (4, 1, 3, 2)  # FileMetaData.row_groups[].columns[].meta_data.encodings, as field numbers
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12


def sort_encodings(path: Path) -> None:
    """Sort the lists of encodings in the footer of the Parquet file at ``path``.

    Raises
    ------
    WarehouseError
        If the file does not end as a Parquet file does.
    """
    with path.open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 8, 0))
        tail = file.read(8)
        length = struct.unpack("<I", tail[:4])[0] if len(tail) == 8 else 0
        if tail[4:] != _MAGIC or length > size - 12:
            raise WarehouseError(f"{path}: seen a file that is not Parquet; allowed: Parquet")
        file.seek(size - 8 - length)
        before = file.read(length)
        footer = _Footer(before)
        footer.struct(())
        if footer.data != before:
            file.seek(size - 8 - length)
            file.write(footer.data)


class _Footer:
    """A reader of Thrift's compact protocol that sorts one kind of list on its way."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def struct(self, path: tuple[int, ...]) -> None:
        field = 0
        while (header := self.byte()) != _STOP:
            kind, delta = header & 0x0F, header >> 4
            if delta:
                field += delta
            else:
                number = self.varint()
                field = (number >> 1) ^ -(number & 1)
            if kind not in (_TRUE, _FALSE):  # a field's header is its boolean
                self.value(kind, (*path, field))

    def value(self, kind: int, path: tuple[int, ...]) -> None:
        if kind in (_TRUE, _FALSE, _BYTE):
            self.at += 1
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self.varint()
            self.at += length
        elif kind in (_LIST, _SET):
            self.list(path)
        elif kind == _MAP:
            size = self.varint()
            kinds = self.byte() if size else 0
            for _ in range(size):
                self.value(kinds >> 4, path)
                self.value(kinds & 0x0F, path)
        elif kind == _STRUCT:
            self.struct(path)
        else:  # the integers of 16, 32 and 64 bits
            self.varint()

    def list(self, path: tuple[int, ...]) -> None:
        header = self.byte()
        size, kind = header >> 4, header & 0x0F
        if size == 15:
            size = self.varint()
        start = self.at
        for _ in range(size):
            self.value(kind, path)
        if path == _ENCODINGS:  # each is one byte
            self.data[start : self.at] = bytes(sorted(self.data[start : self.at]))
