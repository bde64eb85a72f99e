"""What a source finds in files, as rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.platform.sources import SOURCES
from jobs.platform.sources.shape import FAULT_COLUMNS, Given

Rows = list[dict[str, Any]]
Faults = list[tuple[str, str, str, str]]


@pytest.fixture
def read(spark: SparkSession) -> Callable[..., Any]:
    """``read(source, **given)``: good events, good items (None where there are none), and faults.

    A fault is file, row, column and reason; faults of events come first.
    """

    def run(source: str, **given: Any) -> tuple[Rows, Rows | None, Faults]:
        found = SOURCES[source].find(Given(**given))
        events, faults = _split(found.events(spark))
        items, more = _split(found.items(spark)) if found.items else (None, [])
        return events, items, faults + more

    return run


def _split(rows: DataFrame) -> tuple[Rows, Faults]:
    good: Rows = []
    faults: Faults = []
    for row in rows.collect():
        values = row.asDict()
        file, content, column, reason = (values.pop(name) for name in FAULT_COLUMNS)
        if reason is None:
            good.append(values)
        else:
            faults.append((file, content, column, reason))
    return good, sorted(faults)
