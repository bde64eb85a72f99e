"""Every switch is on record, with what was left, also where one before it was cut short."""

from __future__ import annotations

import pytest

from jobs.platform import switches
from jobs.platform.release_draft import new_draft
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse


def made(wh: Warehouse, ds: str, recommender: str) -> Release:
    with new_draft(wh) as draft:
        (draft.folder / "note.txt").write_text(recommender)
        return draft.seal(ds, None, {"versions": {"recommender": recommender}})


@pytest.fixture
def first(warehouse: Warehouse) -> Release:
    """The first release, switched to."""
    release = made(warehouse, "2020-01-01", "m1")
    record(release, None)
    return release


@pytest.fixture
def second(warehouse: Warehouse) -> Release:
    """A second one, not on record."""
    return made(warehouse, "2020-01-02", "m2")


def record(release: Release, left: str | None, kind: switches.Kind = "publish") -> dict[str, object]:
    return switches.record(release, left=left, kind=kind, who="ada", why="because")


def test_what_was_left_is_on_record(first: Release, second: Release) -> None:
    record(second, first.id)
    one, two = switches.history(first.warehouse)
    assert one["from"] is None
    assert two["from"] == one["to"] == {"release": first.id, "recommender": "m1"}
    assert two["to"] == {"release": second.id, "recommender": "m2"}


@pytest.mark.parametrize("moved", [False, True])
def test_a_switch_that_is_repeated_is_recorded_once(first: Release, second: Release, moved: bool) -> None:
    entry = record(second, first.id)
    assert record(second, second.id if moved else first.id) == entry
    assert len(switches.history(first.warehouse)) == 2


def test_a_rollback_is_recorded_though_the_switch_before_it_was_not(first: Release, second: Release) -> None:
    record(first, second.id, "rollback")
    assert switches.history(first.warehouse)[-1]["from"] == {"release": second.id, "recommender": "m2"}
    assert switches.rolled_back(first.warehouse, "m2") is not None
    record(second, first.id, "rollback")
    assert switches.rolled_back(first.warehouse, "m2") is None, "somebody went back to it on purpose"


def test_a_damaged_release_that_is_left_is_named(first: Release, second: Release) -> None:
    (second.local() / "manifest.json").write_text("{}")
    entry = record(first, second.id, "rollback")
    assert entry["from"] == {"release": second.id, "recommender": None}
