"""Events that a caller gives, checked and turned into histories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from hymirec_model.errors import InputError
from hymirec_model.histories import Histories, day_end

Events = Sequence[tuple[str, float]]
"""(item_id, seconds since 1970 UTC), in any order; events of equal time stand oldest first."""
_LATEST = 1e11  # year 5138; milliseconds since 1970 are beyond it
_SHOWN = 3  # unknown items that an error message names


def histories_of(
    batch: Sequence[Events],
    index_of: Mapping[str, int],
    *,
    now: float | None = None,
    skip_unknown: bool = False,
) -> tuple[Histories, npt.NDArray[np.int64]]:
    """Histories of the events, and each one's present, from which ages count.

    Parameters
    ----------
    batch : sequence of Events
        One entry a user.
    index_of : mapping of str to int
        item_index of every known item_id.
    now : float, optional
        The present, in seconds since 1970; by default the end of the day of a user's newest event.
    skip_unknown : bool, default=False
        Leave events of unknown items out; they still count for the present.

    Raises
    ------
    InputError
        If a user has no event, an event is not a pair, a time is no time, or an item is unknown.
    """
    present = None if now is None else _time(now, "now")
    rows = [_checked(events, number, len(batch)) for number, events in enumerate(batch)]
    if not skip_unknown:
        _refuse_unknown([item for row in rows for item, _ in row if item not in index_of])
    items: list[int] = []
    stamps: list[int] = []
    offsets, moments = [0], []
    for number, row in enumerate(rows):
        row.sort(key=lambda event: event[1])  # stable
        known = [(index_of[item], math.floor(time)) for item, time in row if item in index_of]
        if not known:
            raise InputError(
                f"events{_of(number, len(batch))}: seen {len(row)} events, none of an item that the release holds; "
                "allowed: at least one; show something that needs no history, such as what is popular"
            )
        moments.append(math.floor(row[-1][1] if present is None else present))
        items += [item for item, _ in known]
        stamps += [stamp for _, stamp in known]
        offsets.append(len(items))
    names = np.array([str(number) for number in range(len(rows))], object)
    histories = Histories(names, np.array(offsets, np.int64), np.array(items, np.int64), np.array(stamps, np.int64))
    return histories, np.array(moments, np.int64) if present is not None else day_end(np.array(moments, np.int64))


def _checked(events: Any, number: int, users: int) -> list[tuple[str, float]]:
    name = f"events{_of(number, users)}"
    pairs = [] if isinstance(events, str | bytes) else list(events)
    for pair in pairs:
        if not (isinstance(pair, Sequence) and len(pair) == 2 and isinstance(pair[0], str)) or isinstance(pair, str):
            raise InputError(f"{name}: seen {pair!r}; allowed: (item_id as a string, seconds since 1970)")
    if not pairs:
        raise InputError(
            f"{name}: seen {events!r}; allowed: one (item_id, seconds since 1970) or more; "
            "for people without events show something that needs no history, such as what is popular"
        )
    return [(item, _time(time, name)) for item, time in pairs]


def _time(value: Any, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not abs(float(value)) < _LATEST:
        raise InputError(
            f"{name}: seen time {value!r}; allowed: seconds since 1970 UTC, a number below {_LATEST:.0e} "
            "(divide milliseconds by 1000; of a datetime take .timestamp())"
        )
    return float(value)


def _refuse_unknown(unknown: list[str]) -> None:
    distinct = list(dict.fromkeys(unknown))
    if distinct:
        more = f" and {len(distinct) - _SHOWN} more" if len(distinct) > _SHOWN else ""
        raise InputError(
            f"events: seen item_id {', '.join(map(repr, distinct[:_SHOWN]))}{more}; allowed: items of the release; "
            "pass skip_unknown=True to leave out those that are newer than it"
        )


def _of(number: int, users: int) -> str:
    return "" if users == 1 else f" of user {number} of {users}"
