"""PixelRec: CSV of interactions (item_id, user_id, timestamp) and of videos (item_id, title, tag, description …).

The first line tells which is which: every size of the data set has its own names for the files. The smaller ones are
parts of the larger, so a folder holds one.
"""

from __future__ import annotations

from jobs.platform.contracts import EVENTS_FILE, ITEMS_FILE
from jobs.platform.sources.own_csv import ENDINGS, csv_texts
from jobs.platform.sources.shape import Files, Found, Given, TimeUnit, find_set
from jobs.platform.sources.text import events_of, header_of, items_of, read_head


def find(given: Given) -> Found:
    """Find interactions and videos, in a folder or by their own options."""
    events, items = find_set(given, "pixelrec", ENDINGS, _table_of, many=False)
    event_texts = csv_texts("events", events, EVENTS_FILE, {})
    item_texts = csv_texts("items", items, ITEMS_FILE, {"category": "tag"}) if items else None
    return Found(
        [files for files in (events, items) if files],
        lambda spark: events_of(event_texts(spark), TimeUnit.seconds),
        (lambda spark: items_of(item_texts(spark), TimeUnit.seconds)) if item_texts else None,
    )


def _table_of(files: Files, name: str) -> str | None:
    names = header_of(read_head(files, name))[1]
    if {"user_id", "timestamp"} <= set(names):
        return "events"
    return "items" if "title" in names else None
