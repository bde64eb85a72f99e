"""Rows that an import sets aside: counted by reason, kept where people can look, and too many of them refused.

An import has no day of its own, so its record is a folder ``imports/SOURCE-HASH`` of the warehouse, one for each set of
files: ``summary.json``, and the rows with ``table_name``, ``reason``, ``column_name``, ``row`` and ``file``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.platform.errors import ContractBreach
from jobs.platform.quarantine import MAX_ROWS
from jobs.platform.sources.shape import Files
from jobs.platform.staging import staged
from jobs.platform.storage import Storage

_KEPT_CHARS = 1000  # of a row, in the record
_EXAMPLE_CHARS = 120  # of a row, in a message


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows of a table that were set aside for one reason."""

    table: str
    column: str
    reason: str
    rows: int
    file: str
    """Where the first of them, by file and content, comes from."""
    example: str

    def __str__(self) -> str:
        return f"{self.rows:,} {self.table}.{self.column}: {self.reason}, such as {self.file}: {self.example}"


def count_rows(table: str, rows: DataFrame) -> tuple[int, list[Fault]]:
    """Rows that can be read, and the faults of the others."""
    first = F.min(F.struct("file", F.substring("row", 1, _EXAMPLE_CHARS).alias("row"))).alias("first")
    counted = rows.groupBy("column_name", "reason").agg(F.count(F.lit(1)).alias("rows"), first)
    good, faults = 0, []
    for found in counted.orderBy("column_name", "reason").collect():
        if found.reason is None:
            good = found.rows
        else:
            example = " ".join(found.first.row.split())
            faults.append(Fault(table, found.column_name, found.reason, found.rows, found.first.file, example))
    return good, faults


def write_record(
    storage: Storage, name: str, faults: Sequence[Fault], tables: dict[str, DataFrame], files: Sequence[Files]
) -> str:
    """Write what was set aside; return its folder.

    Parameters
    ----------
    storage : Storage
    name : str
        Of the record, as :func:`record_name` makes it.
    faults : sequence of Fault
        At least one.
    tables : dict of str to pyspark.sql.DataFrame
        All rows of each table, with ``file``, ``row``, ``column_name`` and ``reason``.
    files : sequence of Files
        Those that were read.
    """
    bad = None
    for table, rows in tables.items():
        part = rows.filter("reason IS NOT NULL").select(
            F.lit(table).alias("table_name"),
            "reason",
            "column_name",
            F.substring("row", 1, _KEPT_CHARS).alias("row"),
            "file",
        )
        bad = part if bad is None else bad.unionByName(part)
    assert bad is not None
    keys = ["table_name", "column_name", "reason", "file", "row"]
    kept = bad if sum(fault.rows for fault in faults) <= MAX_ROWS else bad.orderBy(*keys).limit(MAX_ROWS)
    counts = {f"{fault.table}.{fault.column}: {fault.reason}": fault.rows for fault in faults}
    summary = {"files": {path: size for group in files for path, size in _sizes(group)}, "set_aside": counts}
    target = f"imports/{name}"
    with staged(storage) as folder:
        kept.coalesce(1).sortWithinPartitions(*keys).write.parquet(storage.spark_path(folder, target))
        storage.replace(f"{folder}/{target}/summary.json", json.dumps(summary, indent=1).encode())
    return target


def record_name(source: str, files: Sequence[Files]) -> str:
    """Name of an import's record: the same files, as far as their names and sizes tell, have the same."""
    sizes = json.dumps([source, *(pair for group in files for pair in _sizes(group))])
    return f"{source}-{hashlib.sha256(sizes.encode()).hexdigest()[:8]}"


def check_share(table: str, good: int, faults: Sequence[Fault], max_bad_share: float, place: str) -> None:
    """Check that few enough rows of a table were set aside.

    Raises
    ------
    ContractBreach
        Names the reasons with counts and examples.
    """
    bad = sum(fault.rows for fault in faults)
    if bad > max_bad_share * (good + bad):
        raise ContractBreach(
            f"table {table}: seen {bad:,} of {good + bad:,} rows that cannot be read ({'; '.join(map(str, faults))}); "
            f"allowed: a share of {max_bad_share:g} (--max-bad-share); they are in {place}, and nothing was imported"
        )


def _sizes(files: Files) -> list[tuple[str, int]]:
    return list(zip(files.paths, files.sizes.values(), strict=True))
