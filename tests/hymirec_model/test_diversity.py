from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hymirec_model.diversity import diversify
from hymirec_model.errors import InputError
from tests.small_day import item_vectors

USERS, CANDIDATES, N = 4, 12, 6
seeds = st.integers(0, 2**32 - 1)
shares = st.floats(0, 1)


def draw(seed: int, absent: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates of users, best first, with vectors in clusters; the last ``absent`` places are empty."""
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(300)[:CANDIDATES] for _ in range(USERS)])
    relevance = -np.sort(-rng.uniform(0.2, 1, items.shape).astype(np.float32), axis=1)
    vectors = item_vectors(300)[items]
    items[:, CANDIDATES - absent :] = -1
    relevance[:, CANDIDATES - absent :] = -np.inf
    return items, relevance, vectors


def by_the_book(relevance: np.ndarray, vectors: np.ndarray, n: int, diversity: float) -> list[int]:
    """One user's list, straight from the paper's formula."""
    chosen: list[int] = []
    for _ in range(min(n, len(relevance))):
        rest = [i for i in range(len(relevance)) if i not in chosen]
        worth = {
            i: (1 - diversity) * float(relevance[i])
            - diversity * max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0)
            for i in rest
        }
        if not chosen:
            worth = {i: float(relevance[i]) for i in rest}
        chosen.append(max(rest, key=lambda i: worth[i]))
    return chosen


@given(seeds, shares, st.integers(0, 8))
def test_each_pick_is_the_one_of_the_formula(seed: int, diversity: float, absent: int) -> None:
    items, relevance, vectors = draw(seed, absent)
    chosen = diversify(items, relevance, vectors, N, diversity)
    there = CANDIDATES - absent
    for user in range(USERS):
        expected = by_the_book(relevance[user, :there], vectors[user, :there], N, diversity)
        assert chosen[user].tolist() == expected + [-1] * (N - len(expected))


@given(seeds, st.integers(0, CANDIDATES))
def test_no_diversity_is_the_order_of_relevance(seed: int, absent: int) -> None:
    items, relevance, vectors = draw(seed, absent)
    there = CANDIDATES - absent
    relevance[:, 2:5][items[:, 2:5] >= 0] = 0.1  # equal ones keep their order
    order = np.argsort(-relevance[:, :there], axis=1, kind="stable")
    chosen = diversify(items, relevance, vectors, CANDIDATES, 0.0)
    assert (chosen[:, :there] == order).all()
    assert (chosen[:, there:] == -1).all()


@given(seeds, shares)
def test_order_of_candidates_and_company_do_not_matter(seed: int, diversity: float) -> None:
    items, relevance, vectors = draw(seed)
    chosen = diversify(items, relevance, vectors, N, diversity)
    mixed = np.random.default_rng(seed).permutation(CANDIDATES)
    other = diversify(items[:, mixed], relevance[:, mixed], vectors[:, mixed], N, diversity)
    assert (mixed[other] == chosen).all()
    for user in range(USERS):
        alone = diversify(items[[user]], relevance[[user]], vectors[[user]], N, diversity)
        assert (alone[0] == chosen[user]).all()


def test_lists_become_less_alike() -> None:
    """Mean cosine within the lists, over many users whose candidates come in clusters, as products do."""
    vectors = item_vectors(600)
    wishes = item_vectors(200, seed=1)
    scores = wishes @ vectors.T
    items = np.argsort(-scores, axis=1)[:, :50]
    relevance = np.take_along_axis(scores, items, axis=1)
    likeness = []
    for diversity in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        chosen = diversify(items, relevance, vectors[items], 10, diversity)
        lists = vectors[np.take_along_axis(items, chosen, axis=1)]
        cosines = np.einsum("uid,ujd->uij", lists, lists)
        likeness.append((cosines.sum((1, 2)) - 10).mean() / 90)
    assert (np.diff(likeness) <= 1e-3).all() and likeness[0] - likeness[-1] > 0.1


def test_no_users_and_no_candidates() -> None:
    items, relevance, vectors = draw(0, CANDIDATES)
    assert (diversify(items, relevance, vectors, 3, 0.5) == -1).all()
    assert diversify(items[:0], relevance[:0], vectors[:0], 3, 0.5).shape == (0, 3)


def test_bad_input_is_named() -> None:
    items, relevance, vectors = draw(0)
    with pytest.raises(InputError, match=r"diversity: got 1\.5, allowed 0 to 1"):
        diversify(items, relevance, vectors, 3, 1.5)
    with pytest.raises(InputError, match=r"diversity: got nan"):
        diversify(items, relevance, vectors, 3, float("nan"))
    with pytest.raises(InputError, match="n: got 13, allowed 1 to 12"):
        diversify(items, relevance, vectors, 13, 0.5)
    with pytest.raises(InputError, match="got shapes"):
        diversify(items, relevance[:, 1:], vectors, 3, 0.5)
    relevance[1, 3] = np.nan
    with pytest.raises(InputError, match="relevance: got values that are not finite"):
        diversify(items, relevance, vectors, 3, 0.5)
