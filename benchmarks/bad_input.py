"""Generated bad input: names, columns, profiles, broken files and rows, each judged by an oracle of its own.

A case is one generated name, profile, set of columns, file or row. Rows go to Spark many at a time. A case is
survived when what was let through satisfies the oracle, and what was not was refused by an error that is ours, or is in
quarantine exactly once with its reason.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.bad_lines import import_lines
from benchmarks.bad_rows import import_files, judge_rows
from hymirec_model.errors import HymirecError
from jobs.platform import manifest, names
from jobs.platform.contracts import EVENTS, ITEMS, Column, FileFacts, check_columns, read_footers, spark_schema
from jobs.platform.errors import JobError
from jobs.platform.profile import PROFILES, load_profile
from jobs.platform.storage import Storage

_SHOWN = 20


@dataclass(slots=True)
class Cases:
    """How many cases of each kind there were, and what was wrong."""

    tried: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """Row of the results file."""
        tried = sum(self.tried.values())
        kinds = dict(self.tried)
        return {"tried": tried, "survived": tried - len(self.wrong), "kinds": kinds, "wrong": self.wrong[:_SHOWN]}


def fuzz(cases: int, random_seed: int) -> dict[str, Any]:
    """Run at least so many cases: a quarter of them rows, the others names, columns, profiles, files and lines."""
    found = Cases()
    share = -(-cases // 4)
    for kind, strategy, judge, count in (
        ("name", st.one_of(_near_names(), st.text(max_size=30)), judge_name, share),
        ("columns", _columns(), judge_columns, share),
        ("profile", _profiles(), judge_profile, share // 4),
        ("broken file", _broken_files(), judge_file, share),
    ):
        for case in collect(strategy, count, random_seed):
            found.tried[kind] += 1
            found.wrong += [f"{kind}: {text}" for text in caught(judge, case)]
    rows, wrong = judge_rows(share, random_seed)
    found.tried["row"] += rows
    found.wrong += wrong
    files, wrong = import_files(max(5, share // 60), random_seed)
    found.tried["imported file"] += files
    found.wrong += wrong
    lines, wrong = import_lines(share, random_seed)
    found.tried["imported line"] += lines
    found.wrong += wrong
    return found.row()


def collect(strategy: st.SearchStrategy[Any], count: int, random_seed: int) -> list[Any]:
    """``count`` cases of a strategy, or all there are; the same for one seed."""
    found: list[Any] = []

    @seed(random_seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def take(case: Any) -> None:
        found.append(case)

    take()
    return found


def caught(judge: Callable[[Any], str | None], case: Any) -> list[str]:
    """What is wrong with how a case was met; an error that is not ours is wrong."""
    try:
        said = judge(case)
    except Exception as error:
        said = f"{type(error).__name__}: {error} at {case!r}"
    return [said[:400]] if said else []


def judge_name(text: str) -> str | None:
    """Names of tables, days, releases and warehouses: what is let through cannot lead elsewhere."""
    days: set[str] = set()
    with_day = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(-[0-9a-f]{8})?", text, re.ASCII)
    if with_day:
        year, month, day = map(int, with_day[1].split("-"))
        try:
            days.add(date(year, month, day).isoformat())
        except ValueError:
            days.discard(text)
    for check, allowed in (
        (names.check_ds, text in days),
        (names.check_table, bool(text) and all(c in "abcdefghijklmnopqrstuvwxyz_" for c in text) and text[0] != "_"),
        (manifest.check_id, bool(with_day and with_day[2])),
    ):
        try:
            passed = check(text) == text
        except JobError as error:
            passed = False
            if "seen" not in str(error) or "allowed" not in str(error):
                return f"{check.__name__} says only {error}"
        if passed != allowed:
            return f"{check.__name__} {'lets through' if passed else 'refuses'} {text!r}"
    try:
        Storage(text)
    except JobError:
        return None
    return None


def judge_columns(case: tuple[tuple[Column, ...], list[dict[str, str]]]) -> str | None:
    """Columns of files: what is let through has every required column, and one readable type for each."""
    contract, files = case
    facts = [FileFacts(f"{n}.parquet", 1, types, frozenset()) for n, types in enumerate(files)]
    wide = ({"float", "double"}, {"int32", "int64"})
    good = True
    for column in contract:
        kinds = [types.get(column.name) for types in files]
        there = {kind for kind in kinds if kind is not None and not (kind == "null" and not column.required)}
        good &= not (column.required and None in kinds) and there <= set(column.types)
        good &= len(there) < 2 or there in wide
    try:
        found = check_columns("events", facts, contract)
    except JobError as error:
        return None if not good and "seen" in str(error) and "allowed" in str(error) else f"refused {files}: {error}"
    if not good:
        return f"let through {files}"
    spark_schema(found)
    return None


def judge_profile(text: str) -> str | None:
    """A profile: read, or refused in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "profile.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            load_profile(str(path))
        except HymirecError as error:
            return f"more than a line: {error}" if "\n" in str(error) else None
    return None


def judge_file(content: bytes) -> str | None:
    """A file that should be Parquet: its footer is read, or the file is refused by its name."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "broken.parquet").write_bytes(content)
        try:
            (facts,) = read_footers(pafs.LocalFileSystem(), folder, ["broken.parquet"])
        except JobError as error:
            return None if "broken.parquet" in str(error) else f"does not name the file: {error}"
    return None if isinstance(facts.rows, int) and not math.isnan(facts.rows) else f"{facts.rows} rows"


def _near_names() -> st.SearchStrategy[str]:
    day = st.dates().map(str)
    code = st.text("0123456789abcdef", min_size=8, max_size=8)
    good = st.one_of(day, st.builds("{}-{}".format, day, code), st.sampled_from(["events", "item_vectors", "a_"]))
    odd = st.sampled_from(["../", "/", "..", "\x00", "%2e%2e/", "\\", " ", "\n", "é", "٣", "=", "ds="])
    return st.one_of(good, st.builds("{}{}".format, good, odd), st.builds("{}{}".format, odd, good))


def _columns() -> st.SearchStrategy[Any]:
    kinds = ("string", "int64", "int32", "float", "double", "timestamp", "list<float>", "null", "binary", "bool")

    def files(contract: tuple[Column, ...]) -> st.SearchStrategy[Any]:
        good = {c.name: st.sampled_from(c.types) for c in contract}
        near = st.fixed_dictionaries(good)
        odd = st.dictionaries(st.sampled_from([*good, "other"]), st.sampled_from(kinds))
        one = st.builds(lambda a, b, drop: {k: v for k, v in {**a, **b}.items() if k != drop}, near, odd, _maybe(good))
        return st.tuples(st.just(contract), st.lists(st.one_of(near, one), min_size=1, max_size=3))

    return st.sampled_from([EVENTS, ITEMS]).flatmap(files)


def _maybe(good: dict[str, Any]) -> st.SearchStrategy[str | None]:
    return st.one_of(st.none(), st.sampled_from(sorted(good)))


def _profiles() -> st.SearchStrategy[str]:
    demo = (PROFILES / "demo.yaml").read_text()
    values = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.just("!!python/object:os.system x"),
    )
    lines = [line for line in demo.splitlines() if re.match(r"^ *\w+:", line)]
    changed = st.builds(
        lambda line, value: demo.replace(line, f"{line.partition(':')[0]}: {value}"), st.sampled_from(lines), values
    )
    alphabet = st.characters(exclude_categories=["Cs"])
    cut = st.integers(0, len(demo)).map(lambda n: demo[:n])
    return st.one_of(
        changed, cut, st.text(alphabet, max_size=60), st.builds("{}{}".format, st.just(demo), st.text(alphabet))
    )


def _broken_files() -> st.SearchStrategy[bytes]:
    sink = pa.BufferOutputStream()
    table: dict[str, Any] = {
        "user_id": ["u"] * 9,
        "item_id": ["i"] * 9,
        "timestamp": list(range(9)),
        "vector": [[1.0, 2.0]] * 9,
    }
    pq.write_table(pa.table(table), sink)
    whole = sink.getvalue().to_pybytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8  # where most of what a reader trusts stands

    def change(edits: list[tuple[int, int]]) -> bytes:
        content = bytearray(whole)
        for place, value in edits:
            content[-1 - place] = value
        return bytes(content)

    edit = st.tuples(st.integers(0, footer - 1), st.integers(0, 255))
    cut = st.integers(0, len(whole) - 1)
    return st.one_of(
        st.lists(edit, min_size=1, max_size=4).map(change),
        cut.map(lambda n: whole[:n]),
        cut.map(lambda n: whole[n:]),
        st.binary(max_size=64),
    )
