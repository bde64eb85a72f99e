"""What is popular now, beside what was on average."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hymirec_model.ann_retrieval import search
from hymirec_model.errors import InputError
from hymirec_model.histories import DAY_SECONDS, Histories
from hymirec_model.merging import Merge
from hymirec_model.popularity_shift import (
    NO_SHIFT,
    PSEUDO_EVENTS,
    PopularityShift,
    Shift,
    shifted_dim,
    shifted_items,
    shifted_queries,
)
from hymirec_model.retrieval import top_items, top_items_each
from tests.hymirec_model import planted
from tests.hymirec_model.event_streams import of

ITEMS, USERS, DIM, K = 60, 9, 8, 3


def log_of(days: list[list[int]]) -> Histories:
    """One user a day of the list, with these items."""
    return of([[(item, day * DAY_SECONDS) for item in items] for day, items in enumerate(days)])


def test_shift_is_the_log_of_how_much_more_is_taken() -> None:
    log = PopularityShift(log_of([[0] * 90, [1] * 10]), 3)
    (found,) = log.at(np.array([2 * DAY_SECONDS]), Shift(days=1, strength=0.5))
    now = np.array([0 + PSEUDO_EVENTS * 0.9, 10 + PSEUDO_EVENTS * 0.1]) / (10 + PSEUDO_EVENTS)
    np.testing.assert_allclose(found[:2], 0.5 * np.log(now / [0.9, 0.1]), rtol=1e-5)
    assert found[2] == 0, "of what nobody took nothing is known"
    assert log.first[:2].tolist() == [0, DAY_SECONDS] and log.first[2] > 1e18
    assert np.array_equal(log.at(np.array([2 * DAY_SECONDS]), Shift(1, 0.5), np.array([2, 0])), found[None, [2, 0]])
    assert not log.at(np.array([0, 99]), NO_SHIFT).any()
    scores = {merge: log.of_items(2 * DAY_SECONDS, Shift(1, 0.5), merge, 20.0) for merge in ("lse", "max")}
    np.testing.assert_allclose(scores["lse"], found)
    np.testing.assert_allclose(scores["max"], found / 20, rtol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=2, max_size=9), st.integers(1, 9), st.data())
def test_only_what_was_taken_before_counts_as_recent(days: list[list[int]], moment: int, data: st.DataObject) -> None:
    """Over all of the log, what is yet to come counts: it is what the model learnt from."""
    mixed = [*days[:moment], *data.draw(st.permutations(days[moment:]))]
    now, shift = np.array([moment * DAY_SECONDS]), Shift(days=3, strength=1)
    first, second = (PopularityShift(log_of(each), 6).at(now, shift) for each in (days, mixed))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("size", [0.0, 0.3, 2.0])
def test_products_of_indexed_vectors_are_cosines_and_shift(size: float) -> None:
    vectors, interests = planted.vectors(ITEMS, DIM), planted.vectors(USERS, DIM, seed=1)
    shift = (size * np.random.default_rng(2).normal(size=ITEMS)).astype(np.float32)
    longest = float(np.abs(shift).max())
    items, queries = shifted_items(vectors, shift, longest), shifted_queries(interests)
    assert items.shape[1] == queries.shape[1] == shifted_dim(DIM) == 16 and shifted_dim(192) == 208
    for rows in (items, queries):
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    factor = np.hypot(1, longest) * np.sqrt(2)
    np.testing.assert_allclose(factor * queries @ items.T, interests @ vectors.T + shift, atol=1e-5)


@pytest.mark.parametrize("merge", ["lse", "max", "calibrated"])
def test_the_index_finds_the_lists_of_exact_search(merge: Merge) -> None:
    rng, scale = np.random.default_rng(0), 15.0
    vectors = planted.vectors(ITEMS, DIM)
    interests = planted.vectors(USERS * K, DIM, seed=1).reshape(USERS, K, DIM)
    weights = rng.random((USERS, K)).astype(np.float32)
    shift = rng.normal(size=ITEMS).astype(np.float32) * (0.1 if merge == "max" else 1.5)
    two = rng.integers(0, ITEMS // 2, (USERS, 2)) + np.array([0, ITEMS // 2])
    own = (np.arange(USERS + 1) * 2, two.ravel())
    unit = 1.0 if merge == "max" else scale
    index = faiss.IndexFlatIP(shifted_dim(DIM))
    index.add(shifted_items(vectors, shift / unit, float(np.abs(shift / unit).max())))
    given_ = (torch.from_numpy(interests), torch.from_numpy(weights), torch.from_numpy(vectors), 10, merge, scale)
    added = torch.from_numpy(shift)
    bonus = (*own, rng.normal(size=len(own[1])).astype(np.float32))
    for options in ({"exclude": own}, {"bonus": bonus}, {}):
        exact, scores = top_items(*given_, shift=added, **options)
        depth = 10 if merge == "max" else ITEMS  # a list of the best interest's items needs no more
        found, near = search(
            index, interests, weights, vectors, 10, merge, scale, shift=shift, per_interest=depth, **options
        )
        assert np.array_equal(found, exact.numpy())
        np.testing.assert_allclose(near, scores, atol=1e-4)
        of_each, _ = top_items(*given_, shift=added.expand(USERS, -1), **options)
        assert torch.equal(of_each, exact)
    others, (with_bonus,) = top_items_each(*given_, shift=added, bonuses=[bonus])
    assert torch.equal(others, top_items(*given_, shift=added, exclude=own)[0])
    assert torch.equal(with_bonus, top_items(*given_, shift=added, bonus=bonus)[0])
    with pytest.raises(InputError, match=r"shift: got shape .* expected one number for each of 60 items"):
        top_items(*given_, shift=added[:-1])
    with pytest.raises(InputError, match=r"60 vectors of 16 dimensions; allowed: 60 of 8, .* without a shift"):
        search(index, interests, weights, vectors, 10, merge, scale)
