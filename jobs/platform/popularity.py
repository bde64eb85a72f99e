"""How recommended items spread over popular and rare ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hymirec_model.metrics import Ints, Relevant

DEPTH = 50  # places of a list that count
GROUPS = 10


def popularity_groups(counts: Ints) -> npt.NDArray[np.int64]:
    """Group of each item: 0 holds the most popular ones, and each of GROUPS about as many events; GROUPS has none.

    An item belongs where the middle of its events falls, most popular items first, so one item with many events may
    leave groups empty.

    Parameters
    ----------
    counts : int array of shape (n_items,)
        Events of each item.
    """
    order = np.argsort(-counts, kind="stable")
    sorted_counts = counts[order].astype(np.float64)
    middle = np.cumsum(sorted_counts) - sorted_counts / 2
    groups = np.full(len(counts), GROUPS, np.int64)
    groups[order] = np.where(sorted_counts > 0, GROUPS * middle / max(sorted_counts.sum(), 1.0), GROUPS)
    return groups


def by_popularity(lists: Mapping[str, Ints], relevant: Relevant, counts: Ints) -> list[dict[str, Any]]:
    """What every ranking recommends of each group of items, in the first DEPTH places.

    Parameters
    ----------
    lists : mapping of str to int array of shape (U, list length)
        By name of the ranking; -1 marks an unused place.
    relevant : (offsets, items)
        What each user took afterwards.
    counts : int array of shape (n_items,)
        Events of each item before.

    Returns
    -------
    list of dict
        For each group with items: its name, how many items, the share of all relevant items in it ("taken"), and a row
        a ranking with the share of its places in the group, and the share of the group's items in somebody's list
        ("coverage").
    """
    groups = popularity_groups(counts)
    sizes = np.bincount(groups, minlength=GROUPS + 1)
    taken = _shares(groups[relevant[1]])
    found = {}
    for name, ranked in lists.items():
        places = ranked[:, :DEPTH]
        places = places[places >= 0]
        shown = np.bincount(groups[np.unique(places)], minlength=GROUPS + 1)
        found[name] = (_shares(groups[places]), shown / np.maximum(sizes, 1))
    return [
        {
            "group": str(group + 1) if group < GROUPS else "none",
            "items": int(sizes[group]),
            "taken": float(taken[group]),
            "rows": [
                {"name": name, "places": float(places[group]), "coverage": float(coverage[group])}
                for name, (places, coverage) in found.items()
            ],
        }
        for group in np.flatnonzero(sizes)
    ]


def _shares(groups: Ints) -> npt.NDArray[np.float64]:
    counts = np.bincount(groups, minlength=GROUPS + 1)
    shares: npt.NDArray[np.float64] = counts / max(counts.sum(), 1)
    return shares
