"""The user's own JSON lines, plain or gzip: an object a line, whose keys are the columns."""

from __future__ import annotations

from jobs.platform.contracts import EVENTS_FILE, ITEMS_FILE, Contract
from jobs.platform.sources.own_files import need_events
from jobs.platform.sources.shape import Found, Given, find_files
from jobs.platform.sources.text import events_of, items_of, read_json_lines

ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")


def find(given: Given) -> Found:
    """Find files of JSON lines of events and items."""
    events = find_files("events", need_events(given, "jsonl"), ENDINGS)
    items = find_files("items", given.items, ENDINGS) if given.items else None
    event_keys = {**_names(EVENTS_FILE), **given.columns}
    item_keys = {**_names(ITEMS_FILE), **given.item_columns}
    return Found(
        [files for files in (events, items) if files],
        lambda spark: events_of(read_json_lines(spark, events.paths, event_keys), given.time_unit),
        (lambda spark: items_of(read_json_lines(spark, items.paths, item_keys), given.time_unit)) if items else None,
    )


def _names(contract: Contract) -> dict[str, str]:
    return {column.name: column.name for column in contract}
