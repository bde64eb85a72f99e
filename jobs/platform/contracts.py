"""What the columns of input tables and files must be.

Types are compared by the names below, which stand for families: ``string`` is any string of Arrow's,
``timestamp`` any unit with or without a time zone, ``list<float>`` a list of fixed or variable length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from jobs.platform.errors import SchemaError, WarehouseError


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its name, the types that it may have, and whether it must be there."""

    name: str
    types: tuple[str, ...]
    required: bool = True


Contract = tuple[Column, ...]
NANOSECONDS = "int64 nanoseconds"
"""Type of a timestamp column that Spark reads as a number of nanoseconds."""
_WIDER = {frozenset({"float", "double"}): "double", frozenset({"int32", "int64"}): "int64"}

EVENTS: Contract = (
    Column("user_id", ("string",)),
    Column("item_id", ("string",)),
    Column("timestamp", ("int64",)),
    Column("event", ("string",), required=False),
    Column("weight", ("float", "double"), required=False),
    Column("seq", ("int32",), required=False),
)
ITEMS: Contract = (
    Column("item_id", ("string",)),
    Column("title", ("string",)),
    Column("description", ("string",), required=False),
    Column("category", ("string",), required=False),
    Column("image_vector", ("list<float>",), required=False),
    Column("updated_at", ("int64", "timestamp"), required=False),
)

_IDS = ("string", "int64", "int32")
EVENTS_FILE: Contract = (
    Column("user_id", _IDS),
    Column("item_id", _IDS),
    Column("timestamp", ("int64", "timestamp")),
    Column("event", ("string",), required=False),
    Column("weight", ("float", "double", "int64", "int32"), required=False),
    Column("seq", ("int32", "int64"), required=False),
)
ITEMS_FILE: Contract = (Column("item_id", _IDS), *ITEMS[1:])


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the footer of a Parquet file tells."""

    name: str
    rows: int
    types: dict[str, str]
    """Type name of each column."""
    nanosecond: frozenset[str]
    """Timestamp columns that are stored as an int64 of nanoseconds, which Spark reads as a number."""
    repeated: frozenset[str] = frozenset()
    """Lower-case names that more than one column has: Spark does not tell upper and lower case apart."""


def read_footers(
    filesystem: pafs.FileSystem, folder: str, names: Sequence[str], *, skip_damaged: bool = False
) -> list[FileFacts]:
    """Read the footers of Parquet files.

    Parameters
    ----------
    filesystem : pyarrow.fs.FileSystem
    folder : str
        Folder of the files, as ``filesystem`` wants it.
    names : sequence of str
        Paths relative to the folder.
    skip_damaged : bool, default=False
        Whether to leave out files that are not Parquet.

    Raises
    ------
    WarehouseError
        If a file is not Parquet, unless those are left out.
    """

    def read(name: str) -> FileFacts | None:
        try:
            with filesystem.open_input_file(f"{folder}/{name}") as stream:
                file = pq.ParquetFile(stream)
                schema, rows = file.schema_arrow, file.metadata.num_rows
                physical = {c.path: c.physical_type for c in (file.schema.column(i) for i in range(len(file.schema)))}
        except (pa.ArrowException, OSError, ValueError) as error:  # ValueError: a name that is not UTF-8
            if skip_damaged:
                return None
            raise WarehouseError(
                f"{folder}/{name}: seen a file that is not Parquet ({error}); allowed: Parquet; write it again or "
                "take it away"
            ) from error
        types = {field.name: type_name(field.type) for field in schema}
        nanosecond = frozenset(
            field.name
            for field in schema
            if pa.types.is_timestamp(field.type) and field.type.unit == "ns" and physical[field.name] == "INT64"
        )
        counts = Counter(field.name.lower() for field in schema)
        return FileFacts(name, rows, types, nanosecond, frozenset(n for n, count in counts.items() if count > 1))

    with ThreadPoolExecutor(16) as pool:
        return [facts for facts in pool.map(read, names) if facts is not None]


def check_columns(table: str, facts: Sequence[FileFacts], contract: Contract) -> dict[str, str]:
    """Check the columns of all files of a table.

    Parameters
    ----------
    table : str
        Name for messages.
    facts : sequence of FileFacts
    contract : tuple of Column

    Returns
    -------
    dict of str to str
        Type of each column of the contract that is there, as Spark is to read it. Where files differ within
        what the contract allows, it is the last of the contract's types that occurs.

    Raises
    ------
    SchemaError
        If a column is missing or its type is not allowed; names the table, column, file, what was seen and
        allowed.
    """
    found: dict[str, str] = {}
    for column in contract:
        allowed = f"{' or '.join(column.types)}{'' if column.required else ', or no such column'}"
        seen: set[str] = set()
        empty = ""
        for file in facts:
            if column.name in file.repeated:
                raise SchemaError(
                    table, column.name, "several columns of this name, in upper or lower case", "one", file.name
                )
            kind = file.types.get(column.name)
            if kind is None:
                if column.required:
                    raise SchemaError(
                        table,
                        column.name,
                        f"no such column among {', '.join(file.types)}",
                        allowed,
                        file.name,
                    )
                continue
            if kind == "null" and not column.required:
                empty = file.name
                continue
            if kind not in column.types:
                raise SchemaError(table, column.name, f"type {kind}", allowed, file.name)
            seen.add(NANOSECONDS if column.name in file.nanosecond else kind)
        if len(seen) > 1 and frozenset(seen) not in _WIDER:
            mixed = " and ".join(sorted(seen))
            raise SchemaError(table, column.name, f"{mixed} in different files", "one type in all files")
        if seen and empty:  # Spark does not read the two together
            mixed = f"no type, as it has no single value, where other files have {' and '.join(sorted(seen))}"
            allowed = f"{allowed}; write it with its type, or leave it out of this file"
            raise SchemaError(table, column.name, mixed, allowed, empty)
        if seen:
            found[column.name] = _WIDER.get(frozenset(seen)) or seen.pop()
    return found


def type_name(kind: pa.DataType) -> str:
    """Name of a type's family, as contracts use it."""
    if pa.types.is_dictionary(kind):
        return type_name(kind.value_type)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return str(kind)


def spark_schema(types: Mapping[str, str]) -> str:
    """Spark DDL of the columns that :func:`check_columns` found."""
    names = {
        "string": "string",
        "int64": "bigint",
        NANOSECONDS: "bigint",
        "int32": "int",
        "float": "float",
        "double": "double",
        "timestamp": "timestamp",
        "list<float>": "array<float>",
    }
    return ", ".join(f"`{column}` {names[kind]}" for column, kind in types.items())
