"""Bad rows: where they go, how many are too many, and how many good ones too few."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.platform.catalog import SUPERSEDED
from jobs.platform.errors import ContractBreach
from jobs.platform.warehouse import Warehouse

Counts = dict[tuple[str, str, str], int]
"""Bad rows by table, column and reason."""
MAX_ROWS = 100_000
"""Most rows kept: when a contract is broken, that can be the whole log."""
_MOST_NAMED = 6  # tables and days in a message


def of_day(table: str, ds: str) -> str:
    """Name of one day of a table, in counts and messages."""
    return f"{table}, partition ds={ds}"


def write_quarantine(
    warehouse: Warehouse, ds: str, judged: Mapping[str, DataFrame], days: Collection[str]
) -> tuple[Counts, Counts]:
    """Write the bad rows of a day's tables as one file of ``quarantine/ds``.

    Parameters
    ----------
    warehouse : Warehouse
    ds : str
    judged : mapping of str to pyspark.sql.DataFrame
        Rows of each table with ``column_name`` and ``reason``, both null for a good row; ``ds`` where it has days.
    days : collection of str
        Days that are counted by themselves, too.

    Returns
    -------
    counts : dict of (str, str, str) to int
    by_day : dict of (str, str, str) to int
        Those of ``days``, with the table's name as :func:`of_day` says it.
    """
    parts = []
    for table, rows in judged.items():
        content = [name for name in rows.columns if name not in ("column_name", "reason", "item_index")]
        row = F.to_json(F.struct(*content)).alias("row")
        bad = rows.filter("reason IS NOT NULL")
        day = F.when(F.col("ds").isin(*days), F.col("ds")) if "ds" in rows.columns else F.lit(None).cast("string")
        parts.append(bad.select(F.lit(table).alias("table_name"), "reason", "column_name", row, day.alias("day")))
    keys = ["table_name", "column_name", "reason"]
    bad_rows = parts[0]
    for part in parts[1:]:
        bad_rows = bad_rows.unionByName(part)
    bad_rows = bad_rows.persist()
    counts: Counts = {}
    by_day: Counts = {}
    for table, column, reason, day, rows in bad_rows.groupBy(*keys, "day").count().orderBy(*keys, "day").collect():
        counts[table, column, reason] = counts.get((table, column, reason), 0) + rows
        if day is not None:
            by_day[of_day(table, day), column, reason] = rows
    total = sum(counts.values())
    with warehouse.write_partition("quarantine", ds) as out:
        wrong_first = F.col("reason") == SUPERSEDED
        kept = bad_rows if total <= MAX_ROWS else bad_rows.orderBy(wrong_first, *keys, "row").limit(MAX_ROWS)
        kept.drop("day").coalesce(1).sortWithinPartitions(*keys, "row").write.parquet(out.path)
        out.rows = min(total, MAX_ROWS)
        out.info["counts"] = by_name(counts)
    bad_rows.unpersist()
    return counts, by_day


def by_name(counts: Counts) -> dict[str, int]:
    """Counts keyed by ``table.column: reason``."""
    return {f"{table}.{column}: {reason}": count for (table, column, reason), count in counts.items()}


def check_shares(ds: str, counts: Counts, rows: Mapping[str, int], max_bad_share: float) -> None:
    """Check that few enough rows of each table are bad; superseded ones are kept from the catalogue, but not bad.

    Parameters
    ----------
    ds : str
    counts : dict of (str, str, str) to int
        As returned by :func:`write_quarantine`.
    rows : mapping of str to int
        Rows of each table, or day of one, good and bad.
    max_bad_share : float
        Largest share of bad rows that is allowed, 0 to 1.

    Raises
    ------
    ContractBreach
        Names each table, its columns and reasons with counts.
    """
    breaches = []
    for table, total in rows.items():
        reasons = {key: count for key, count in counts.items() if key[0] == table and key[2] != SUPERSEDED}
        bad = sum(reasons.values())
        if bad > max_bad_share * total:
            seen = ", ".join(f"column {column}: {n:,} {reason}" for (_, column, reason), n in reasons.items())
            breaches.append(f"table {table}: seen {bad:,} bad of {total:,} rows ({seen})")
    if breaches:
        more = f"; and {len(breaches) - _MOST_NAMED:,} more" if len(breaches) > _MOST_NAMED else ""
        raise ContractBreach(
            f"{'; '.join(breaches[:_MOST_NAMED])}{more}; allowed: a share of {max_bad_share:g} "
            f"(contract.max_bad_share); the bad rows are in quarantine/ds={ds}"
        )


def check_least(good: Mapping[str, int], least: int) -> None:
    """Check that enough rows of each table, or day of one, are good.

    Raises
    ------
    ContractBreach
        Names the first that has fewer.
    """
    for name, seen in good.items():
        if seen < least:
            raise ContractBreach(
                f"table {name}: seen {seen:,} good rows; allowed: {least:,} or more (contract in the profile); "
                "look into the table quarantine for the others, mend the day and run check_inputs again"
            )
