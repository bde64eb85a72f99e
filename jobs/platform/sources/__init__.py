"""Sources of events and items: a module each, and a line here.

A module has a function ``find`` that looks for the files, as jobs.platform.sources.shape describes it.
"""

from __future__ import annotations

from jobs.platform.sources import (
    amazon_2023,
    complete_journey,
    movielens,
    own_csv,
    own_jsonl,
    own_parquet,
    pixelrec,
)
from jobs.platform.sources.shape import Source

_OWN = ("events", "items", "columns", "item_columns", "time_unit")
_SET = ("data", "events", "items")

SOURCES = {
    "parquet": Source(own_parquet.find, _OWN),
    "csv": Source(own_csv.find, _OWN),
    "jsonl": Source(own_jsonl.find, _OWN),
    "movielens": Source(movielens.find, ("data",)),
    "amazon-2023": Source(amazon_2023.find, _SET),
    "pixelrec": Source(pixelrec.find, _SET),
    "completejourney": Source(complete_journey.find, ()),
}
