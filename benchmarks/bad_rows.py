"""Generated rows and files for check_inputs and import_events, and what must become of each."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from benchmarks import bad_input
from hymirec_model.errors import HymirecError
from jobs.check_inputs import check_inputs, find_inputs
from jobs.import_events import LATEST, import_found
from jobs.platform.daily_events import BAD_ITEM, NO_ITEM
from jobs.platform.profile import ContractConfig
from jobs.platform.sources import own_parquet
from jobs.platform.sources.shape import Given
from jobs.platform.spark import session
from jobs.platform.warehouse import Warehouse

Kinds = list[tuple[str, pa.DataType]]
DS = "2024-03-03"
MIDNIGHT = int(datetime(2024, 3, 3, tzinfo=UTC).timestamp())
# White space of Unicode, written out: what counts as empty.
SPACES = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_IDS = [f"item-{n}" for n in range(40)]
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_BLANK = st.one_of(st.none(), st.text(SPACES, max_size=3))


def blank(text: str | None) -> bool:
    """Whether nothing but white space is there."""
    return text is None or all(c in SPACES for c in text)


def event_rows() -> st.SearchStrategy[dict[str, Any]]:
    """An event that is good in most columns."""
    day = st.integers(MIDNIGHT, MIDNIGHT + 86_399)
    edges = st.sampled_from(
        [None, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 86_399, MIDNIGHT + 86_400, 0, -(2**63), 2**63 - 1]
    )
    weights = st.one_of(
        st.none(), st.floats(0, 100), st.floats(), st.sampled_from([-0.0, 1e39, 3.4e38, 3.5e38, -1e-45])
    )
    return st.fixed_dictionaries(
        {
            "user_id": _mostly(st.sampled_from(["u1", "u2", "u3"]), st.one_of(_BLANK, _TEXT)),
            "item_id": _mostly(st.sampled_from(_IDS), st.one_of(_BLANK, _TEXT, st.just("item-0 "))),
            "timestamp": _mostly(day, st.one_of(edges, st.integers(-(2**63), 2**63 - 1))),
            "event": st.one_of(st.none(), _TEXT),
            "weight": weights,
        }
    )


def item_rows() -> st.SearchStrategy[dict[str, Any]]:
    """A row of the catalogue; some ids come up often, others never."""
    return st.fixed_dictionaries(
        {
            "item_id": _mostly(st.sampled_from(_IDS[:-6]), st.one_of(_BLANK, _TEXT)),
            "title": _mostly(_TEXT.map(lambda text: f"x{text}"), _BLANK),
            "updated_at": st.one_of(st.none(), st.integers(-5, 5), st.sampled_from([-(2**63), 2**63 - 1])),
        }
    )


def judge_rows(count: int, random_seed: int) -> tuple[int, list[str]]:
    """Rows through check_inputs: each good one accepted as it is, each bad one in quarantine once."""
    events = bad_input.collect(event_rows(), count * 2 // 3, random_seed)
    items = bad_input.collect(item_rows(), count - count * 2 // 3, random_seed)
    events = [row | {"seq": number} for number, row in enumerate(events)]  # by which a row is known again
    items = [row | {"description": f"row-{number}"} for number, row in enumerate(items)]
    items.append({"item_id": "item-39", "title": " ", "updated_at": None, "description": f"row-{len(items)}"})
    with tempfile.TemporaryDirectory() as folder:
        wh = Warehouse(folder)
        kinds: Kinds = [
            ("user_id", pa.string()),
            ("item_id", pa.string()),
            ("timestamp", pa.int64()),
            ("event", pa.string()),
        ]
        _put(Path(folder) / "events" / f"ds={DS}", events, [*kinds, ("weight", pa.float64()), ("seq", pa.int32())])
        texts: Kinds = [(name, pa.string()) for name in ("item_id", "title", "description")]
        _put(Path(folder) / "items", items, [*texts, ("updated_at", pa.int64())])
        contract = ContractConfig(max_bad_share=0.999)
        check_inputs(session("bad rows"), wh, DS, contract, find_inputs(wh, DS))
        catalog = {r["item_index"]: r["item_id"] for r in wh.read(wh.partition("catalog", DS)).to_pylist()}
        accepted = wh.read(wh.partition("accepted_events", DS)).to_pylist()
        bad = wh.read(wh.partition("quarantine", DS)).to_pylist()
    return len(events) + len(items), [
        *_wrong_items(items, set(catalog.values()), [row for row in bad if row["table_name"] == "items"]),
        *_wrong_events(events, items, accepted, catalog, [row for row in bad if row["table_name"] == "events"]),
    ]


def _wrong_items(items: list[dict[str, Any]], catalog: set[str], bad: list[dict[str, Any]]) -> list[str]:
    wrong = []
    out = Counter(json.loads(row["row"])["description"] for row in bad)
    good: dict[str, list[dict[str, Any]]] = {}
    for row in items:
        if blank(row["item_id"]) or blank(row["title"]):
            if out[row["description"]] != 1:
                wrong.append(f"row: empty item {row} is {out[row['description']]} times in quarantine")
        else:
            good.setdefault(row["item_id"], []).append(row)
    for name, rows in good.items():
        kept = [row for row in rows if not out[row["description"]]]
        newest = max((-math.inf if row["updated_at"] is None else row["updated_at"]) for row in rows)
        if len(kept) != 1 or (-math.inf if kept[0]["updated_at"] is None else kept[0]["updated_at"]) != newest:
            wrong.append(f"row: of item {name!r} these are kept: {kept}, newest is {newest}")
    if catalog != set(good):
        wrong.append(f"row: the catalogue has {sorted(catalog ^ set(good))[:5]} too many or too few")
    return wrong


def _wrong_events(
    events: list[dict[str, Any]],
    items: list[dict[str, Any]],
    accepted: list[dict[str, Any]],
    catalog: dict[int, str],
    bad: list[dict[str, Any]],
) -> list[str]:
    wrong = []
    known = {row["item_id"] for row in items if not blank(row["item_id"]) and not blank(row["title"])}
    spoilt = {row["item_id"] for row in items} - known
    out, come = Counter[int](), Counter(row["seq"] for row in accepted)
    said = {}
    for row in bad:
        number = json.loads(row["row"])["seq"]
        out[number] += 1
        said[number] = (row["column_name"], row["reason"])
    for row in events:
        faults = event_faults(row, known, spoilt)
        where = (come[row["seq"]], out[row["seq"]])
        if where != ((0, 1) if faults else (1, 0)):
            wrong.append(f"row: {row} is {where} times in accepted_events and quarantine, faults {faults}")
        elif faults and said[row["seq"]] not in faults:
            wrong.append(f"row: {row} is in quarantine for {said[row['seq']]}, not for {faults}")
    for row in accepted:
        given = events[row["seq"]]
        weight = 1.0 if given["weight"] is None else float(np.float32(given["weight"]))
        same = (row["user_id"], catalog[row["item_index"]], row["timestamp"], row["event"], row["weight"])
        if same != (given["user_id"], given["item_id"], given["timestamp"], given["event"], weight):
            wrong.append(f"row: {given} became {row}")
    return wrong


def event_faults(row: dict[str, Any], known: set[str | None], spoilt: set[str | None]) -> set[tuple[str, str]]:
    """Columns and reasons for which an event is bad; its item counts when nothing else is."""
    faults = {(name, "null or empty") for name in ("user_id", "item_id") if blank(row[name])}
    if row["timestamp"] is None or not MIDNIGHT <= row["timestamp"] < MIDNIGHT + 86_400:
        faults.add(("timestamp", "null or outside its day (contract.max_late_days)"))
    with np.errstate(over="ignore"):
        weight = 1.0 if row["weight"] is None else float(np.float32(row["weight"]))
    if not 0 <= weight <= 3.4e38:
        faults.add(("weight", "negative or not a number"))
    if not faults and row["item_id"] not in known:
        faults.add(("item_id", BAD_ITEM if row["item_id"] in spoilt else NO_ITEM))
    return faults


def import_files(count: int, random_seed: int) -> tuple[int, list[str]]:
    """Files through import_events: all rows as they are, or an error of ours and nothing written."""
    wrong = []
    files = bad_input.collect(event_files(), count, random_seed)
    for case in files:
        wrong += [f"imported file: {text}" for text in bad_input.caught(_judge_import, case)]
    return len(files), wrong


def event_files() -> st.SearchStrategy[Any]:
    """Columns of an events file: name, type, values; some types and names are not allowed."""
    seconds = _mostly(st.integers(0, 2_000_000_000), st.one_of(st.none(), st.integers(-(10**10), 10**10)))
    units = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "America/New_York")]
    times = st.sampled_from([pa.int64(), *units, pa.int32(), pa.string(), pa.date32(), pa.float64()])
    ids = st.sampled_from([pa.string(), pa.large_string(), pa.int64(), pa.int32(), pa.binary(), pa.bool_()])
    more = st.lists(
        st.sampled_from(["weight", "seq", "event", "USER_ID", "user_id", "ds", "a b", "", "x.y", "é`;"]), max_size=3
    )
    return st.tuples(ids, ids, times, more, st.lists(seconds, min_size=0, max_size=12))


def _judge_import(case: Any) -> str | None:
    user, item, kind, more, seconds = case
    numbers = list(range(len(seconds)))
    try:
        arrays = [_ids(numbers, user), _ids(numbers, item), _times(seconds, kind)]
    except (pa.ArrowInvalid, OverflowError):
        return None  # no file of this type can hold such a time
    names = ["user_id", "item_id", "timestamp", *more]
    arrays += [_extra(name, numbers) for name in more]
    items = {"item_id": [str(n) for n in numbers] or ["0"], "title": ["x"] * max(1, len(numbers))}
    with tempfile.TemporaryDirectory() as folder:
        source, wh = Path(folder) / "files", Warehouse(f"{folder}/warehouse")
        source.mkdir()
        pq.write_table(pa.Table.from_arrays(arrays, names), source / "events.parquet")
        pq.write_table(pa.table(items), source / "items.parquet")
        given = Given(events=f"{source}/events.parquet", items=f"{source}/items.parquet")
        try:
            import_found(own_parquet.find(given), wh, "parquet", max_bad_share=0, replace=True)
        except HymirecError as error:
            if wh.partitions("events") or wh.storage.files("items"):
                return f"{error}: but something was written, of {case}"
            return None if "seen" in str(error) and "allowed" in str(error) else f"says only {error}"
        files = sorted(Path(folder, "warehouse", "events").rglob("*.parquet"))
        got = [(path.parent.name, row) for path in files for row in pq.read_table(path, partitioning=None).to_pylist()]
    return _wrong_import(case, got)


def _wrong_import(case: Any, got: list[tuple[str, dict[str, Any]]]) -> str | None:
    user, item, _, _, seconds = case
    if any(second is None or not 0 <= second <= LATEST for second in seconds):
        return f"let through {case}"

    def row(number: int, second: int) -> tuple[Any, ...]:
        ids = (_ids([number], kind).to_pylist()[0] for kind in (user, item))
        return (f"ds={datetime.fromtimestamp(second, UTC).date()}", *map(str, ids), second)

    expected = sorted(row(n, second) for n, second in enumerate(seconds))
    found = sorted((day, r["user_id"], r["item_id"], r["timestamp"]) for day, r in got)
    return None if found == expected else f"{case} became {found[:3]} …"


def _ids(numbers: list[int], kind: pa.DataType) -> Any:
    if pa.types.is_integer(kind):
        return pa.array(numbers, kind)
    if pa.types.is_boolean(kind):
        return pa.array([bool(n % 2) for n in numbers], kind)
    return pa.array([str(n) for n in numbers]).cast(kind)


def _times(seconds: list[int | None], kind: pa.DataType) -> Any:
    if pa.types.is_timestamp(kind):
        return pa.array(seconds, pa.int64()).cast(pa.timestamp("s", kind.tz)).cast(kind)
    if kind == pa.date32():
        return pa.array([None if s is None else s // 86_400 for s in seconds], pa.int32()).cast(kind)
    return pa.array(seconds, pa.int64()).cast(kind)


def _extra(name: str, numbers: list[int]) -> Any:
    if name == "weight":
        return pa.array([float(n) - 1 for n in numbers], pa.float64())
    if name == "seq":
        return pa.array([n << 30 for n in numbers], pa.int64())
    return pa.array([f"x{n}" for n in numbers], pa.string())


def _mostly(good: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(good, good, good, good, odd)


def _put(folder: Path, rows: list[dict[str, Any]], kinds: Kinds) -> None:
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), folder / "part-0.parquet")
