"""Bad rows: where they go, and how many are too many."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.platform.errors import ContractBreach
from jobs.platform.warehouse import Warehouse

Counts = dict[tuple[str, str, str], int]
"""Bad rows by table, column and reason."""
MAX_ROWS = 100_000
"""Most rows kept: when a contract is broken, that can be the whole log."""


def write_quarantine(warehouse: Warehouse, ds: str, judged: Mapping[str, DataFrame]) -> tuple[Counts, Counts]:
    """Write the bad rows of a day's tables as one file of ``quarantine/ds``.

    Parameters
    ----------
    warehouse : Warehouse
    ds : str
    judged : mapping of str to pyspark.sql.DataFrame
        Rows of each table with ``column_name`` and ``reason``, both null for a good row; ``ds`` where it has days.

    Returns
    -------
    counts : dict of (str, str, str) to int
    of_day : dict of (str, str, str) to int
        Those of the partition ``ds`` alone, under the table's name "<table>, partition ds=<ds>".
    """
    parts = []
    for table, rows in judged.items():
        content = [name for name in rows.columns if name not in ("column_name", "reason", "item_index")]
        row = F.to_json(F.struct(*content)).alias("row")
        bad = rows.filter("reason IS NOT NULL")
        on_day = (F.col("ds") == ds if "ds" in rows.columns else F.lit(False)).alias("on_day")
        parts.append(bad.select(F.lit(table).alias("table_name"), "reason", "column_name", row, on_day))
    keys = ["table_name", "column_name", "reason"]
    bad_rows = parts[0]
    for part in parts[1:]:
        bad_rows = bad_rows.unionByName(part)
    bad_rows = bad_rows.persist()
    sums = (F.count(F.lit(1)).alias("rows"), F.count_if("on_day").alias("of_day"))
    counted = bad_rows.groupBy(*keys).agg(*sums).orderBy(*keys).collect()
    counts = {(row.table_name, row.column_name, row.reason): int(row.rows) for row in counted}
    of_day = {
        (f"{row.table_name}, partition ds={ds}", row.column_name, row.reason): int(row.of_day)
        for row in counted
        if row.of_day
    }
    total = sum(counts.values())
    with warehouse.write_partition("quarantine", ds) as out:
        kept = bad_rows if total <= MAX_ROWS else bad_rows.orderBy(*keys, "row").limit(MAX_ROWS)
        kept.drop("on_day").coalesce(1).sortWithinPartitions(*keys, "row").write.parquet(out.path)
        out.rows = min(total, MAX_ROWS)
        out.info["counts"] = by_name(counts)
    bad_rows.unpersist()
    return counts, of_day


def by_name(counts: Counts) -> dict[str, int]:
    """Counts keyed by ``table.column: reason``."""
    return {f"{table}.{column}: {reason}": count for (table, column, reason), count in counts.items()}


def check_shares(ds: str, counts: Counts, rows: Mapping[str, int], max_bad_share: float) -> None:
    """Check that few enough rows of each table are bad.

    Parameters
    ----------
    ds : str
    counts : dict of (str, str, str) to int
        As returned by :func:`write_quarantine`.
    rows : mapping of str to int
        Rows of each table, good and bad.
    max_bad_share : float
        Largest share of bad rows that is allowed, 0 to 1.

    Raises
    ------
    ContractBreach
        Names each table, its columns and reasons with counts.
    """
    breaches = []
    for table, total in rows.items():
        reasons = {key: count for key, count in counts.items() if key[0] == table}
        bad = sum(reasons.values())
        if bad > max_bad_share * total:
            seen = ", ".join(f"column {column}: {n:,} {reason}" for (_, column, reason), n in reasons.items())
            breaches.append(f"table {table}: seen {bad:,} bad of {total:,} rows ({seen})")
    if breaches:
        raise ContractBreach(
            f"{'; '.join(breaches)}; allowed: a share of {max_bad_share:g} (contract.max_bad_share); "
            f"the bad rows are in quarantine/ds={ds}"
        )
