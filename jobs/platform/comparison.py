"""Two releases side by side: their sizes, their figures, and how far people's lists and interests moved.

Shapes: U people, K interests, d dimensions. Items and users are compared by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.platform.gate import COVERAGE
from jobs.platform.recommend import Recommended
from jobs.platform.releases import Release
from jobs.platform.scorecard import CHAMPION, MAIN, MODEL, mean_of

METRICS = (*MAIN, COVERAGE)
QUANTILES = {"min": 0.0, "10 %": 0.1, "50 %": 0.5, "90 %": 0.9}
_SEED = 0

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Number of ids in two releases."""

    a: int
    b: int
    kept: int
    """Ids that both have."""

    @property
    def added(self) -> int:
        """Ids of B that A lacks."""
        return self.b - self.kept

    @property
    def gone(self) -> int:
        """Ids of A that B lacks."""
        return self.a - self.kept


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of the two releases' evaluations.

    Attributes
    ----------
    a, b : float or None
        Mean of each release's model, on the users and days of its own evaluation; None where it was not measured.
    a_there : float or None
        Mean of A's model on the users and days of B's evaluation; None unless A was B's champion with another model.
    lead : dict or None
        {"mean", "low", "high"}: paired 95 % interval of the difference of `b` and `a_there`; coverage has none.
    """

    metric: str
    a: float | None
    b: float | None
    a_there: float | None
    lead: dict[str, float] | None


@dataclass(frozen=True, slots=True)
class People:
    """People of both releases, in ascending order of their ids.

    Attributes
    ----------
    n : int
        Places of a list.
    overlap : float64 array of shape (U,)
        0 to 1, see :func:`overlap`.
    cosine : float64 array of shape (U,) or None
        -1 to 1, see :func:`matched_cosine`; None where the releases' item spaces differ.
    new_items : float64 array of shape (U,)
        Share of items that A does not hold, 0 to 1, of the list of B.
    n_events : int64 array of shape (2, U)
        Events of each person in A and in B.
    """

    user_ids: list[str]
    n: int
    overlap: Floats
    cosine: Floats | None
    new_items: Floats
    n_events: npt.NDArray[np.int64]

    def most_changed(self, limit: int) -> list[int]:
        """Places of the people whose lists share least, at most `limit`; nobody whose list shares all."""
        order = np.argsort(self.overlap, kind="stable")[:limit]
        return [int(place) for place in order if self.overlap[place] < 1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Release A beside release B."""

    a: Release
    b: Release
    items: Sizes
    users: Sizes
    evaluations: tuple[dict[str, Any], dict[str, Any]]
    """Content of each evaluation.json."""
    people: People | None
    """None where no user is in both."""


def compare(a: Release, b: Release, users: int, n: int) -> Comparison:
    """Compare two releases.

    Parameters
    ----------
    a, b : Release
    users : int
        How many of the users in both are compared; memory grows with them, and with the ids of the releases.
    n : int
        Length of their lists.
    """
    items_a, items_b = (release.recommender.names["item_id"] for release in (a, b))
    users_a, users_b = (release.table("interests", ["user_id"])["user_id"] for release in (a, b))
    in_both = users_b.filter(pc.is_in(users_b, value_set=users_a))
    chosen = sample(in_both, users)
    first, second = a.evaluation(), b.evaluation()
    return Comparison(
        a=a,
        b=b,
        items=Sizes(len(items_a), len(items_b), pc.sum(pc.is_in(items_b, value_set=items_a)).as_py() or 0),
        users=Sizes(len(users_a), len(users_b), len(in_both)),
        evaluations=(first, second),
        people=compare_people(a, b, chosen, n) if chosen else None,
    )


def compare_people(a: Release, b: Release, user_ids: list[str], n: int) -> People:
    """Compare the lists of people, without what they have seen, and their interests."""
    in_a, in_b = (release.recommender.interests(user_ids) for release in (a, b))
    lists_a, lists_b = (
        _item_ids(release.recommender.lists(interests, n, exclude_seen=True, diversity=0.0))
        for release, interests in ((a, in_a), (b, in_b))
    )
    listed = sorted({item for items in lists_b for item in items})
    known = pc.is_in(pa.array(listed, pa.string()), value_set=a.recommender.names["item_id"])
    new = {item for item, old in zip(listed, known.to_pylist(), strict=True) if not old}
    same_space = a.manifest["versions"]["space"] == b.manifest["versions"]["space"]
    return People(
        user_ids=user_ids,
        n=n,
        overlap=np.array([overlap(one, two) for one, two in zip(lists_a, lists_b, strict=True)]),
        cosine=matched_cosine(in_a.vectors, in_b.vectors) if same_space else None,
        new_items=np.array([len(new.intersection(items)) / max(len(items), 1) for items in lists_b]),
        n_events=np.stack([in_a.n_events, in_b.n_events]),
    )


def sample(user_ids: pa.ChunkedArray[Any], limit: int) -> list[str]:
    """At most `limit` ids, ascending: the same ones of the same users, in whatever order these stand."""
    ordered = user_ids.take(pc.sort_indices(user_ids))
    if len(ordered) > limit:
        ordered = ordered.take(np.sort(np.random.default_rng(_SEED).choice(len(ordered), limit, replace=False)))
    return [str(user_id) for user_id in ordered.to_pylist()]


def overlap(first: Sequence[str], second: Sequence[str]) -> float:
    """Share of the items of two lists that are in both, by the length of the longer one; 1 where both are empty."""
    longest = max(len(first), len(second))
    return len(set(first) & set(second)) / longest if longest else 1.0


def matched_cosine(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> Floats:
    """Mean cosine between people's interests of two releases, each matched to one other so that the sum is largest.

    Parameters
    ----------
    first, second : arrays of shape (U, K, d) and (U, K', d)
        Where K and K' differ, interests that are left over do not count.

    Returns
    -------
    float64 array of shape (U,)
    """
    import torch

    from hymirec_model.matching import match

    first, second = (
        vectors / np.linalg.norm(vectors.astype(np.float64), axis=2, keepdims=True) for vectors in (first, second)
    )
    cosines_UKK = np.einsum("ukd,ujd->ukj", first, second)
    valid = torch.ones(len(cosines_UKK), cosines_UKK.shape[2], dtype=torch.bool)
    partner_UK = match(torch.from_numpy(cosines_UKK), valid).numpy()
    found_UK = np.take_along_axis(cosines_UKK, np.maximum(partner_UK, 0)[..., None], 2)[..., 0]
    return np.asarray(found_UK.mean(1, where=partner_UK >= 0))


def figures(first: Mapping[str, Any], second: Mapping[str, Any], release_id: str) -> list[Figure]:
    """Figures of two releases' models by the content of their evaluation.json.

    Parameters
    ----------
    first, second : mapping
        Evaluations of A and of B.
    release_id : str
        Of A: where it was the champion of B's evaluation, both models ranked for the same users and days.
    """
    rows_a, rows_b = ({row["name"]: row for row in evaluation["rows"]} for evaluation in (first, second))
    champion = second["champion"]
    shared = champion is not None and champion["release"] == release_id
    there = rows_b.get(CHAMPION, {}) if shared else {}
    cohorts = champion["cohorts"] if there else []
    leads = {row["metric"]: row["difference"] for row in cohorts if row["cohort"] == "all users"}
    return [
        Figure(
            metric=metric,
            a=mean_of(rows_a[MODEL].get(metric)),
            b=mean_of(rows_b[MODEL].get(metric)),
            a_there=mean_of(there.get(metric)),
            lead=leads.get(metric),
        )
        for metric in METRICS
    ]


def quantiles(values: Floats) -> list[float]:
    """Mean, then QUANTILES, of figures of people."""
    return [float(values.mean()), *(float(found) for found in np.quantile(values, list(QUANTILES.values())))]


def _item_ids(lists: list[list[Recommended]]) -> list[list[str]]:
    return [[place.item_id for place in found] for found in lists]
