"""Does check_inputs stop a day that is damaged, and none that is not?

Usage::

    make bench-input-drift                      minutes

All days of The Complete Journey, each compared with the days before it, under the defaults of the profile. ``as it
is``: how many of them stop, and how far each figure goes. The last day has only its first hours and is left out of the
false alarms. The other rows damage a copy of every seventh day from the sixtieth on, and compare the copy with the true
days before it.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import typer
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from benchmarks.report import Check, Results
from jobs.platform.input_drift import Drift, compare_days
from jobs.platform.input_statistics import Statistics, event_statistics
from jobs.platform.profile import ContractConfig
from jobs.platform.sources.complete_journey import complete_journey
from jobs.platform.spark import session

Days = dict[str, Statistics]
START, STEP = 60, 7
APART = 400  # days by which the copies of one kind of damage are moved, so that one aggregation takes all
CONTRACT = ContractConfig(drift="accept")
DAY, SECOND = "floor(timestamp / 86400)", "timestamp % 86400"
LUCK = "pmod(xxhash64(user_id, item_index, timestamp), 1000) / 1000"


def damages(grocery: list[int]) -> dict[str, Callable[[DataFrame], DataFrame]]:
    """Kinds of damage; ``grocery``: items of the largest category."""
    of_grocery = F.array(*map(F.lit, grocery))
    drawn = F.element_at(of_grocery, (F.pmod(F.xxhash64("item_index"), F.size(of_grocery)) + 1).cast("int"))
    robots = F.expr(f"if({LUCK} < 1 / 3, 'robot', user_id)")
    return {
        "a tenth of the events": lambda events: events.filter(f"{LUCK} < 0.1"),
        "a quarter of the events": lambda events: events.filter(f"{LUCK} < 0.25"),
        "half of the events": lambda events: events.filter(f"{LUCK} < 0.5"),
        "the log ends at 18:00": lambda events: events.filter(f"{SECOND} < 18 * 3600"),
        "the largest category is lost": lambda events: events.filter("category != 'GROCERY'"),
        "the third largest category is lost": lambda events: events.filter("category != 'PRODUCE'"),
        "all items of the largest category": lambda events: events.withColumn("item_index", drawn),
        "a third of the events by one user": lambda events: events.withColumn("user_id", robots),
        "a third of the events on one item": lambda events: events.withColumn(
            "item_index", F.expr(f"if({LUCK} < 1 / 3, {grocery[0]}, item_index)")
        ),
        "hours shifted by 5": lambda events: _shifted(events, 5),
        "hours shifted by 8": lambda events: _shifted(events, 8),
        "times cut to days": lambda events: events.withColumn("timestamp", F.expr(f"{DAY} * 86400")),
        "four times the events": lambda events: _times(events, 4),
        "every event twice": lambda events: _times(events, 2),
    }


def _shifted(events: DataFrame, hours: int) -> DataFrame:
    return events.withColumn("timestamp", F.expr(f"{DAY} * 86400 + ({SECOND} + {hours} * 3600) % 86400"))


def _times(events: DataFrame, times: int) -> DataFrame:
    return events.withColumn("copy", F.explode(F.sequence(F.lit(1), F.lit(times))))


def load(spark: SparkSession) -> tuple[DataFrame, DataFrame]:
    """Events as check_inputs accepts them, with ``category``; a catalogue whose items come with their first event."""
    events, items = complete_journey(spark)
    since = F.date_add(F.lit("1970-01-01").cast("date"), F.min(F.expr(DAY)).cast("int")).cast("string")
    first = events.groupBy("item_id").agg(since.alias("first_ds"))
    number = (F.row_number().over(Window.orderBy("item_id")) - 1).cast("int")
    catalog = items.select("item_id", "category").join(first, "item_id").withColumn("item_index", number).persist()
    events = events.select("user_id", "item_id", "timestamp", "event")
    numbered = events.join(catalog.select("item_id", "item_index", "category"), "item_id")
    return numbered.withColumn("seq", F.lit(None).cast("int")).drop("item_id").persist(), catalog


def compared(day: str, seen: Statistics, true: Days) -> Drift:
    """A day, damaged or not, beside the true days before it."""
    return compare_days({day: seen}, {other: true[other] for other in true if other < day}, [day], CONTRACT)


def as_it_is(true: Days) -> dict[str, Any]:
    """False alarms among whole days, and the farthest that each figure goes, as a share of what is allowed."""
    found = {day: compared(day, seen, true) for day, seen in list(true.items())[:-1]}
    checked = {day: drift for day, drift in found.items() if not drift.unchecked}
    worst: dict[str, float] = {}
    for day, drift in checked.items():
        for name, used in drift.of_day(day).items():
            worst[name] = max(used, worst.get(name, 0.0))
    last = list(true)[-1]
    return {
        "name": "as it is",
        "days": len(checked),
        "stopped": sum(bool(drift.breaches) for drift in checked.values()),
        "cut_day_stopped": bool(compared(last, true[last], true).breaches),
        "farthest": {name: round(used, 3) for name, used in worst.items()},
    }


def damaged(name: str, copies: Days, true: Days, by: int) -> dict[str, Any]:
    """How many damaged days stop, and by which figures."""
    figures: dict[str, int] = {}
    stopped = 0
    for moved, seen in copies.items():
        day = str(datetime.date.fromisoformat(moved) - datetime.timedelta(days=by))
        # Moved in time, all items look old: the share of new ones is that of the true day.
        breaches = compared(day, seen | {"new_items": true[day]["new_items"]}, true).breaches
        stopped += bool(breaches)
        for breach in breaches:
            figures[breach.figure] = figures.get(breach.figure, 0) + 1
    return {"name": name, "days": len(copies), "stopped": stopped, "by": figures}


def arrived(events: DataFrame) -> DataFrame:
    """Accepted events that came in time."""
    day = F.date_add(F.lit("1970-01-01").cast("date"), F.expr(DAY).cast("int")).cast("string")
    return events.drop("category").withColumn("arrived", day)


def main() -> None:
    """Measure false alarms, and which damage is found."""
    spark = session("input drift")
    events, catalog = load(spark)
    days = [row.day for row in events.select(F.expr(DAY).alias("day")).distinct().orderBy("day").collect()]
    dates = {day: str(datetime.date(1970, 1, 1) + datetime.timedelta(days=day)) for day in days}
    true = event_statistics(arrived(events), catalog, list(dates.values()))
    results = Results("input-drift")
    results.add(as_it_is(true))
    largest = catalog.filter("category = 'GROCERY'").orderBy("item_index").limit(2000)
    grocery = [row.item_index for row in largest.collect()]
    chosen = days[START:-1:STEP]
    sample = events.filter(F.expr(DAY).isin(chosen))
    for number, (name, damage) in enumerate(damages(grocery).items(), start=1):
        moved = damage(sample).withColumn("timestamp", F.col("timestamp") + number * APART * 86400)
        shifted = [str(datetime.date(1970, 1, 1) + datetime.timedelta(days=day + number * APART)) for day in chosen]
        results.add(damaged(name, event_statistics(arrived(moved), catalog, shifted), true, number * APART))
    rows = {row["name"]: row for row in results.rows}
    alarms = rows["as it is"]["stopped"]
    results.checks.append(Check("days stopped without damage", alarms, 0, alarms == 0))
    for name in damages(grocery):
        share = rows[name]["stopped"] / rows[name]["days"]
        results.checks.append(Check(f"stopped: {name}", share, 1.0, share == 1.0))
    results.write()
    results.show()


if __name__ == "__main__":
    typer.run(main)
