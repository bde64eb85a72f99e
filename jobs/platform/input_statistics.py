"""Statistics of a day's accepted events: the few figures by which it is compared with the days before it.

A day's statistics are JSON values and lie in ``info["statistics"]`` of its partition of accepted_events, a few
kilobytes a day. Distributions hold counts, not shares, so that those of several days add up to one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

DISTRIBUTIONS = ("event", "category", "hour")
MOST_VALUES = 100
"""Values of a distribution that are kept, the most frequent ones; the others count as OTHER."""
NONE, OTHER = "(none)", "(other)"

Statistics = dict[str, Any]
"""``rows``, ``users``, ``items`` (distinct ones), shares of the events (``top_user``, ``top_item``: of the most
frequent one; ``new_items``: on items that came into the catalogue that day or later; ``no_seq``: without ``seq``), and
for each of DISTRIBUTIONS the events by value."""


def event_statistics(events: DataFrame, catalog: DataFrame, days: Collection[str]) -> dict[str, Statistics]:
    """Statistics of what arrived on each of some days, from one aggregation.

    Parameters
    ----------
    events : pyspark.sql.DataFrame
        Accepted events.
    catalog : pyspark.sql.DataFrame
        The catalogue of the same run.
    days : collection of str
        The others are left out; so is a day without events.

    Returns
    -------
    dict of str to Statistics
        By day, oldest first. The same events give the same statistics.
    """
    # From the epoch: Spark's own functions of time go by the time zone of the session.
    hour = F.lpad(F.floor((F.col("timestamp") % 86400) / 3600).cast("string"), 2, "0")
    values = {
        "user": F.col("user_id"),
        "item": F.col("item_index").cast("string"),
        "event": F.coalesce("event", F.lit(NONE)),
        "category": F.coalesce("category", F.lit(NONE)),
        "hour": hour,
    }
    cells = F.explode(F.array(*(F.struct(F.lit(name).alias("kind"), v.alias("value")) for name, v in values.items())))
    counted = (
        events.withColumnRenamed("arrived", "day")
        .filter(F.col("day").isin(*days))
        .join(catalog.select("item_index", "category", "first_ds"), "item_index")
        .select("day", F.col("first_ds") >= F.col("day"), F.col("seq").isNull(), cells.alias("cell"))
        .toDF("day", "is_new", "no_seq", "cell")
        .groupBy("day", "cell.kind", "cell.value")
        .agg(F.count(F.lit(1)).alias("n"), F.count_if("is_new").alias("new"), F.count_if("no_seq").alias("no_seq"))
    )
    # Users and items have no list: there may be millions of them.
    listed = F.when(F.col("kind").isin(*DISTRIBUTIONS), F.struct("n", "value"))
    found = counted.groupBy("day", "kind").agg(
        F.sum("n").alias("rows"),
        F.count(F.lit(1)).alias("distinct"),
        F.max("n").alias("most"),
        F.sum("new").alias("new"),
        F.sum("no_seq").alias("no_seq"),
        F.slice(F.sort_array(F.collect_list(listed), asc=False), 1, MOST_VALUES).alias("values"),
    )
    by_day: dict[str, dict[str, Row]] = {}
    for row in found.collect():
        by_day.setdefault(row.day, {})[row.kind] = row
    return {day: _statistics(by_day[day]) for day in sorted(by_day)}


def _statistics(kinds: dict[str, Row]) -> Statistics:
    user, item = kinds["user"], kinds["item"]
    rows = int(user["rows"])
    return {
        "rows": rows,
        "users": int(user["distinct"]),
        "items": int(item["distinct"]),
        "top_user": user["most"] / rows,
        "top_item": item["most"] / rows,
        "new_items": user["new"] / rows,
        "no_seq": user["no_seq"] / rows,
        **{name: _distribution(kinds[name]) for name in DISTRIBUTIONS},
    }


def _distribution(kind: Row) -> dict[str, int]:
    counts = {str(cell["value"]): int(cell["n"]) for cell in kind["values"]}
    rest = int(kind["rows"]) - sum(counts.values())
    return counts | ({OTHER: rest} if rest else {})
