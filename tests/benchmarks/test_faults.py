"""Faults are counted as they went: what was not survived shows in the row and in the checks."""

from __future__ import annotations

from pathlib import Path

from benchmarks.fault_day import differences, seen
from benchmarks.fault_kinds import Outcome
from benchmarks.faults import checks
from benchmarks.report import Results
from jobs.platform import releases
from jobs.platform.warehouse import Warehouse
from tests import tiny_release

DS = "2024-03-03"


def write(wh: Warehouse, text: str, **info: str) -> None:
    with wh.write_partition("histories", DS) as part:
        (part.local / "x.json").write_text(text)
        part.info |= info


def test_equal_bytes_are_equal_and_others_are_not(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    write(wh, "1")
    before = seen(tmp_path)
    write(wh, "1")
    assert differences(seen(tmp_path), before) == [], "another attempt with the same bytes"
    write(wh, "2")
    after = seen(tmp_path)
    assert differences(after, before) == [f"histories/ds={DS}"]
    assert differences(after, before, after) == []
    write(wh, "2", fact="x")
    assert differences(seen(tmp_path), after) == [f"histories/ds={DS}"]
    assert differences({}, after) == [f"histories/ds={DS}"], "what was lost is a difference"


def test_releases_are_compared_to_the_byte(tmp_path: Path) -> None:
    made = [tiny_release.make(Warehouse(str(tmp_path / name)), DS, name[:1]) for name in ("a1", "a2", "b1")]
    for release in made:
        releases.switch(release)
    one, same, other = (seen(tmp_path / name) for name in ("a1", "a2", "b1"))
    assert differences(one, same) == [] and differences(one, other) == ["release"]


def test_what_went_wrong_is_not_survived() -> None:
    outcome = Outcome("kill")
    outcome.check("first", [], (True, "left"))
    outcome.check("second", ["histories"], (False, "left"))
    assert (outcome.tried, outcome.survived) == (2, 1)
    assert outcome.wrong == ["second: left; other content: histories"]


def test_checks_fail_where_they_should() -> None:
    rows = [
        {"group": "kill", "name": "kill", "tried": 3, "survived": 2},
        {"group": "race", "name": "race", "tried": 999, "survived": 999},
        {"group": "input", "name": "bad input", "tried": 10_000, "survived": 10_000},
    ]
    failed = [check.name for check in checks(Results("x", rows)) if not check.holds]
    assert failed == ["kill: not survived", "switches beside readers"]
