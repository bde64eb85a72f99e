"""Which accepted partitions make up the log up to a day, and what later days were built on.

``accepted_events/ds=D`` holds the days after ``info["previous"]`` up to D. Following ``previous`` from D
back gives each day of the log exactly once, also when days were run out of order; a plain list of all
partitions may not.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.platform.errors import WarehouseError
from jobs.platform.warehouse import Partition, Warehouse


def accepted_chain(warehouse: Warehouse, ds: str) -> list[Partition]:
    """Partitions of accepted_events that together hold the log up to and including ``ds``, oldest first.

    Raises
    ------
    MissingPartition
        If check_inputs has not run for ``ds`` or for a day that it was built on.
    """
    chain: list[Partition] = []
    day: str | None = ds
    while day is not None:
        chain.append(warehouse.partition("accepted_events", day))
        day = chain[-1].info["previous"]
    return chain[::-1]


def lineage(chain: list[Partition]) -> dict[str, str]:
    """Fingerprint of the log up to each day of a chain, from the content of its partitions."""
    fingerprints: dict[str, str] = {}
    fingerprint = ""
    for partition in chain:
        fingerprint = hashlib.sha256(f"{fingerprint} {partition.info['content']}".encode()).hexdigest()[:16]
        fingerprints[partition.ds] = fingerprint
    return fingerprints


def check_days(chain: list[Partition], days: set[str]) -> None:
    """Check that a chain has read each of the ``days`` of events up to its end.

    Raises
    ------
    WarehouseError
        If a day was brought in after a later one was accepted: no run would ever read it.
    """
    missing = sorted(days - {day for accepted in chain for day in accepted.info["days"]})
    if missing:
        # A run takes all days since the one before it, so of each gap the last day is enough.
        last = {next(accepted.ds for accepted in chain if accepted.ds > day): day for day in missing}
        again = ", ".join(sorted({*last, *last.values()}))
        raise WarehouseError(
            f"table events: seen {len(missing)} days, ds={missing[0]} to {missing[-1]}, that were brought in when a "
            f"later one had been accepted; allowed: days in order; run these, in order: {again}; or take the new days "
            "away"
        )


def check_numbering(warehouse: Warehouse, chain: list[Partition]) -> None:
    """Check that the item numbers of each day of a chain are those of its catalogue, which continues the one before it.

    Raises
    ------
    WarehouseError
        If a day was run again with other items after a later day had numbered its items on top of it, or was cut
        short after its catalogue: the same item_index would stand for two items.
    """
    parent: Partition | None = None
    for accepted in chain:
        catalog = warehouse.partition("catalog", accepted.ds)
        if accepted.info["numbering"] != catalog.info["numbering"]:
            raise WarehouseError(
                f"table accepted_events, column item_index: seen numbers of another catalogue than that of "
                f"ds={accepted.ds} (check_inputs of that day was cut short); allowed: those of the day's own; run "
                f"check_inputs of {accepted.ds} again"
            )
        if parent is not None and catalog.info["parent_numbering"] != parent.info["numbering"]:
            later = ", ".join(p.ds for p in chain if p.ds > parent.ds)
            raise WarehouseError(
                f"table catalog, column item_index: seen other numbers in ds={parent.ds} than those "
                f"that ds={catalog.ds} was built on (ds={parent.ds} was run again with other items); "
                f"allowed: numbers that never change; run these days again, in order: {later}"
            )
        parent = catalog


def content_of(rows: DataFrame, columns: list[str], **more: Column) -> dict[str, Any]:
    """Row count and a hash of the content that does not depend on the rows' order."""
    code = F.xxhash64(*columns)
    low = F.sum(code.bitwiseAND(F.lit(0x7FFFFFFF)))
    counted = rows.agg(
        F.count(F.lit(1)).alias("rows"),
        F.bit_xor(code).alias("xor"),
        low.alias("low"),
        *(value.alias(name) for name, value in more.items()),
    ).first()
    assert counted is not None
    return counted.asDict() | {"content": f"{(counted.xor or 0) & 0xFFFFFFFFFFFFFFFF:016x}{counted.low or 0:x}"}
