"""The log up to a day: each day once, also when days ran out of order or were run again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from jobs.platform.errors import MissingPartition, WarehouseError
from jobs.platform.lineage import accepted_chain, check_days, check_numbering, lineage
from jobs.platform.warehouse import Warehouse

D1, D2, D3 = "2024-02-28", "2024-02-29", "2024-03-01"


def put(wh: Warehouse, table: str, ds: str, **info: Any) -> None:
    with wh.write_partition(table, ds) as part:
        (part.local / "facts.json").write_text(json.dumps(info))
        part.info |= info


def accept(
    wh: Warehouse, ds: str, previous: str | None, content: str = "", days: Sequence[str] = (), numbering: str = ""
) -> None:
    facts = {"content": content or ds, "days": [*days, ds], "numbering": numbering}
    put(wh, "accepted_events", ds, previous=previous, **facts)


def test_days_run_out_of_order_hold_each_event_once(warehouse: Warehouse) -> None:
    accept(warehouse, D1, None)
    accept(warehouse, D3, D1)  # holds the second day too
    accept(warehouse, D2, D1)  # a backfill
    assert [p.ds for p in accepted_chain(warehouse, D3)] == [D1, D3]
    assert [p.ds for p in accepted_chain(warehouse, D2)] == [D1, D2]
    with pytest.raises(MissingPartition, match="accepted_events/ds=2024-03-02"):
        accepted_chain(warehouse, "2024-03-02")


def test_a_day_that_came_too_late_is_named(warehouse: Warehouse) -> None:
    accept(warehouse, D1, None, days=["2024-02-01"])
    accept(warehouse, D3, D1)
    chain = accepted_chain(warehouse, D3)
    check_days(chain, {"2024-02-01", D1, D3})
    check_days(chain, {D3})  # files of old days may be removed
    with pytest.raises(WarehouseError, match=f"seen 1 days, ds={D2} to {D2}, .* in order: {D2}, {D3}; or take"):
        check_days(chain, {D1, D2, D3})
    with pytest.raises(WarehouseError, match=f"seen 3 days, ds=2024-01-01 to {D2}, .*: 2024-01-02, {D1}, {D2}, {D3};"):
        check_days(chain, {"2024-01-01", "2024-01-02", D1, D2})
    accept(warehouse, D2, D1)
    accept(warehouse, D3, D2)  # both were run
    check_days(accepted_chain(warehouse, D3), {D1, D2, D3})


def test_a_fingerprint_stands_for_all_earlier_days(warehouse: Warehouse) -> None:
    for ds, previous in ((D1, None), (D2, D1), (D3, D2)):
        accept(warehouse, ds, previous)
    before = lineage(accepted_chain(warehouse, D3))
    accept(warehouse, D2, D1)  # run again, the same content
    assert lineage(accepted_chain(warehouse, D3)) == before
    accept(warehouse, D2, D1, content="other")
    after = lineage(accepted_chain(warehouse, D3))
    assert {ds: after[ds] == before[ds] for ds in before} == {D1: True, D2: False, D3: False}


def test_other_items_in_an_earlier_day_are_noticed(warehouse: Warehouse) -> None:
    numbers: dict[str | None, str] = {}
    for ds, previous in ((D1, None), (D2, D1), (D3, D2)):
        numbers[ds] = f"numbers of {ds}"
        accept(warehouse, ds, previous, numbering=numbers[ds])
        put(warehouse, "catalog", ds, numbering=numbers[ds], parent_numbering=numbers.get(previous))
    chain = accepted_chain(warehouse, D3)
    check_numbering(warehouse, chain)
    put(warehouse, "catalog", D1, numbering="other numbers", parent_numbering=None)
    with pytest.raises(WarehouseError, match=f"of ds={D1} .*cut short.*run check_inputs of {D1} again"):
        check_numbering(warehouse, chain)
    accept(warehouse, D1, None, numbering="other numbers")
    chain = accepted_chain(warehouse, D3)
    message = rf"table catalog, column item_index: .*{D1} was run again.*again, in order: {D2}, {D3}"
    with pytest.raises(WarehouseError, match=message):
        check_numbering(warehouse, chain)
