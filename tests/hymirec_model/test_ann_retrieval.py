from __future__ import annotations

from itertools import pairwise
from typing import Any

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hymirec_model import ann_retrieval, retrieval
from hymirec_model.ann_retrieval import search
from hymirec_model.config import IndexConfig
from hymirec_model.errors import InputError
from hymirec_model.index import build_index
from hymirec_model.merging import Merge
from hymirec_model.retrieval import tie_order, top_items
from hymirec_model.vectors import float32_rows
from tests.small_day import DIM, item_vectors

MERGES: tuple[Merge, ...] = ("max", "lse", "calibrated")
USERS, K, ITEMS = 6, 3, 300
seeds = st.integers(0, 2**32 - 1)


def flat(vectors: np.ndarray) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def people(seed: int, users: int = USERS) -> tuple[np.ndarray, np.ndarray]:
    """Interests near items, and weights of which some are 0."""
    rng = np.random.default_rng(seed)
    interests = item_vectors(users * K, seed=int(rng.integers(1 << 30))).reshape(users, K, DIM)
    weights = rng.uniform(0.2, 1, (users, K)).astype(np.float32)
    weights[::3, rng.integers(K)] = 0
    return interests, weights


def some_items(seed: int, most: int, users: int = USERS) -> tuple[np.ndarray, np.ndarray]:
    """Items to leave out, ragged; some named twice, and one user's none."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, ITEMS, rng.integers(0, most + 1)) for _ in range(users)]
    rows[-1] = rows[-1][:0]
    return np.concatenate([[0], np.cumsum([len(row) for row in rows])]), np.concatenate(rows)


def exactly(
    interests: np.ndarray, weights: np.ndarray, vectors: np.ndarray, n: int, merge: Merge, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    arrays = (torch.from_numpy(array) for array in (interests, weights, vectors))
    items, scores = top_items(*arrays, n, merge, 12.0, **options)
    return items.numpy(), scores.numpy()


@given(seeds, st.sampled_from(MERGES), st.sampled_from([5, 100, 299, 900]), st.integers(1, 40))
def test_over_a_flat_index_lists_are_the_exact_ones(seed: int, merge: Merge, most: int, n: int) -> None:
    """For `max` with the default depth; for sums over the interests when everything is fetched."""
    (interests, weights), exclude, vectors = people(seed), some_items(seed, most), item_vectors(ITEMS)
    depth = None if merge == "max" else ITEMS
    found = search(
        flat(vectors), interests, weights, vectors, n, merge, 12.0, exclude=exclude, per_interest=depth, seed=seed
    )
    exact = exactly(interests, weights, vectors, n, merge, exclude=exclude, seed=seed)
    assert (found[0] == exact[0]).all()
    np.testing.assert_allclose(found[1], exact[1], atol=1e-4)


@given(seeds, st.sampled_from(MERGES), st.sampled_from([0, 100]), st.sampled_from([1, 30]), st.integers(1, 40))
def test_own_items_are_ranked_whether_the_index_finds_them_or_not(
    seed: int, merge: Merge, excluded: int, owned: int, n: int
) -> None:
    (interests, weights), vectors = people(seed), item_vectors(ITEMS)
    rng = np.random.default_rng(seed)
    rows = [rng.permutation(ITEMS)[: rng.integers(0, owned + 1)] for _ in range(USERS)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    bonus = (offsets, np.concatenate(rows), rng.uniform(-40, 40, offsets[-1]).astype(np.float32))
    options: dict[str, Any] = {"exclude": some_items(seed, excluded), "bonus": bonus, "seed": seed}
    depth = None if merge == "max" else ITEMS
    found = search(flat(vectors), interests, weights, vectors, n, merge, 12.0, per_interest=depth, **options)
    exact = exactly(interests, weights, vectors, n, merge, **options)
    assert (found[0] == exact[0]).all()
    np.testing.assert_allclose(found[1], exact[1], atol=1e-4)


@given(seeds, st.sampled_from(MERGES), st.integers(1, 60), st.sampled_from([0, 40, 900]))
def test_equal_scores_stand_in_the_order_of_the_seed(seed: int, merge: Merge, n: int, most: int) -> None:
    """Eight texts share 300 products: every list ends among equals, far more than are fetched at first."""
    vectors = item_vectors(8)[np.random.default_rng(seed).integers(8, size=ITEMS)]
    (interests, weights), exclude = people(seed), some_items(seed, most)
    found = search(flat(vectors), interests, weights, vectors, n, merge, 12.0, exclude=exclude, seed=seed)
    place = tie_order(ITEMS, seed)[1].numpy()
    for row, scores, (start, end) in zip(*found, pairwise(exclude[0]), strict=True):
        left = np.setdiff1d(np.arange(ITEMS), exclude[1][start:end])
        listed = row[row >= 0]
        assert len(listed) == min(n, len(left)) and np.isin(listed, left).all()
        assert (np.diff(scores[row >= 0]) <= 0).all()
        for text in np.unique(vectors[listed], axis=0):
            same = left[(vectors[left] == text).all(1)]
            mine = listed[(vectors[listed] == text).all(1)]
            assert mine.tolist() == same[np.argsort(place[same])][: len(mine)].tolist()


@given(seeds, st.sampled_from(MERGES), st.integers(1, 30))
def test_a_list_does_not_depend_on_the_company(seed: int, merge: Merge, n: int) -> None:
    (interests, weights), exclude = people(seed), some_items(seed, 100)
    vectors = item_vectors(80)[np.random.default_rng(seed).integers(80, size=ITEMS)].astype(np.float16)
    index = flat(vectors.astype(np.float32))
    together = search(index, interests, weights, vectors, n, merge, 12.0, exclude=exclude)
    for user, (start, end) in enumerate(pairwise(exclude[0])):
        mine = (np.array([0, end - start]), exclude[1][start:end])
        one = slice(user, user + 1)
        alone = search(index, interests[one], weights[one], vectors, n, merge, 12.0, exclude=mine)
        assert (alone[0][0] == together[0][user]).all() and (alone[1][0] == together[1][user]).all()


@pytest.mark.parametrize("merge", MERGES)
def test_deeper_fetches_come_closer_to_the_exact_list(merge: Merge) -> None:
    vectors, (interests, weights) = item_vectors(ITEMS), people(0, 40)
    index, (exact, _) = flat(vectors), exactly(interests, weights, vectors, 20, merge)
    shares = []
    for depth in (20, 60, 300):
        found, _ = search(index, interests, weights, vectors, 20, merge, 12.0, per_interest=depth)
        shares.append(np.mean([len(np.intersect1d(a, b)) / 20 for a, b in zip(found, exact, strict=True)]))
    assert shares == sorted(shares) and shares[0] > 0.7 and shares[-1] == 1


@pytest.mark.parametrize("kind", ["ivf", "ivf-int8", "ivf-int4", "ivf-pq"])
def test_lists_are_full_over_an_inverted_file(kind: Any) -> None:
    """People often know all that the probed lists hold: then the others are searched too."""
    vectors, (interests, weights) = item_vectors(ITEMS), people(1, 20)
    config = IndexConfig(types=(kind,), target_recall=0.1, neighbours=5)
    index, _ = build_index(vectors, interests.reshape(-1, DIM), config)
    near, _ = exactly(interests, weights, vectors, 270, "lse")
    exclude = (np.arange(21) * 270, near.ravel())
    found, scores = search(index, interests, weights, vectors, 25, "lse", 12.0, exclude=exclude)
    assert (found >= 0).all() and np.isfinite(scores).all()
    for row, known in zip(found, near, strict=True):
        assert len(set(row) - set(known)) == 25
    every, _ = search(index, interests, weights, vectors, ITEMS, "lse", 12.0)
    assert (np.sort(every, axis=1) == np.arange(ITEMS)).all(), "a list of the whole catalogue is that"


def test_no_users_give_empty_lists() -> None:
    vectors, (interests, weights) = item_vectors(ITEMS), people(0)
    assert search(flat(vectors), interests[:0], weights[:0], vectors, 7)[0].shape == (0, 7)


def test_bad_input_is_named() -> None:
    vectors, (interests, weights) = item_vectors(ITEMS), people(0)
    index = flat(vectors)
    with pytest.raises(InputError, match="index holds 300 vectors of 16 dimensions"):
        search(index, interests, weights, vectors[:5], 3)
    with pytest.raises(InputError, match="got 5 and 4, allowed n >= 1 and per_interest >= n"):
        search(index, interests, weights, vectors, 5, per_interest=4)
    with pytest.raises(InputError, match="got 0 and 0"):
        search(index, interests, weights, vectors, 0)
    with pytest.raises(InputError, match="merge: got 'mean'"):
        search(index, interests, weights, vectors, 5, "mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 users have weights"):
        search(index, interests, weights * (np.arange(USERS) != 2)[:, None], vectors, 5)
    with pytest.raises(InputError, match="exclude or bonus: got items 300 to 300, allowed 0 to 299"):
        search(index, interests, weights, vectors, 5, exclude=(np.array([0, 1, 1, 1, 1, 1, 1]), np.array([300])))


def test_own_items_count_in_the_memory_that_a_search_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    owned, limit, gathered = 100, 3 * (100 + 12 * K) * DIM, []

    def gather(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        gathered.append(rows.size * DIM)
        return float32_rows(vectors, rows)

    monkeypatch.setattr(retrieval, "CELLS", limit)
    monkeypatch.setattr(ann_retrieval, "float32_rows", gather)
    (interests, weights), vectors = people(0), item_vectors(ITEMS)
    items = np.tile(np.arange(owned), USERS)
    bonus = (np.arange(USERS + 1) * owned, items, np.ones(len(items), np.float32))
    search(flat(vectors), interests, weights, vectors, 1, "max", 12.0, bonus=bonus)
    assert 0 < max(gathered) <= limit
