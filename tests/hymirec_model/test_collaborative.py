from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hymirec_model.collaborative import _sample, co_occurrence, collaborative_vectors
from hymirec_model.config import ItemSpaceConfig
from hymirec_model.errors import InputError
from hymirec_model.histories import Histories
from tests.hymirec_model import planted

ITEMS, UNSEEN = 60, 12
CONFIG = ItemSpaceConfig(dim=8)
LOG = planted.log(80, ITEMS)


def small(*rows: list[int]) -> Histories:
    offsets = np.cumsum([0, *map(len, rows)])
    items = np.array([item for row in rows for item in row], np.int64)
    return Histories(np.array([f"u{n}" for n in range(len(rows))], object), offsets, items, np.arange(len(items)))


def test_pairs_count_by_their_gap_within_a_user() -> None:
    found = co_occurrence(small([0, 1, 2], [2, 0]), 4, near=2, decay=0.5)
    expected = np.zeros((4, 4))
    for a, b, gap in ((0, 1, 1), (1, 2, 1), (0, 2, 2), (2, 0, 1)):
        expected[a, b] += gap**-0.5
        expected[b, a] += gap**-0.5
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)
    assert found.indices.dtype == np.int32, "memory"


def test_what_is_taken_together_lies_together() -> None:
    vectors = collaborative_vectors(LOG, ITEMS + UNSEEN, CONFIG)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[:ITEMS], axis=1), 1, rtol=1e-5)
    assert not vectors[ITEMS:].any(), "an item without events has a vector"
    same = np.equal.outer(planted.group_of(ITEMS), planted.group_of(ITEMS))
    cosine = vectors[:ITEMS, :-1] @ vectors[:ITEMS, :-1].T
    assert cosine[same].mean() > cosine[~same].mean() + 0.3
    assert np.array_equal(vectors, collaborative_vectors(LOG, ITEMS + UNSEEN, CONFIG))


def test_a_lower_item_exponent_lets_popular_items_lead() -> None:
    rows = [[int(np.random.default_rng(user).integers(1, 12)), 0] * 6 for user in range(60)]
    lengths = [
        np.linalg.norm(collaborative_vectors(small(*rows), 12, replace(CONFIG, item_exponent=e))[:, :-1], axis=1)
        for e in (0.0, 0.5)
    ]
    lead = [length[0] / length[1:].mean() for length in lengths]
    assert lead[0] > lead[1]


def test_more_dimensions_than_items_are_left_empty() -> None:
    vectors = collaborative_vectors(small([0, 1, 0, 1]), 3, CONFIG)
    assert vectors.shape == (3, 8) and np.isfinite(vectors).all() and not vectors[:, 1:-1].any()


def test_one_item_or_none_near_another_still_has_a_vector() -> None:
    vectors = collaborative_vectors(small([0], [1]), 2, CONFIG)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1)


def test_no_users_is_refused() -> None:
    with pytest.raises(InputError, match="seen 0 users"):
        collaborative_vectors(LOG.of_users(np.zeros(0, np.int64)), ITEMS, CONFIG)


def test_of_a_long_log_a_sample_of_users_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory follows the pairs, of which a log has many more than events."""
    assert _sample(LOG, len(LOG.items), seed=0) is LOG
    events = len(LOG.items) // 4
    some, others = (_sample(LOG, events, seed) for seed in (0, 1))
    longest = int(np.diff(LOG.offsets).max())
    assert events - longest < len(some.items) <= events and set(some.user_ids) != set(others.user_ids)
    own = {
        user: LOG.items[a:b].tolist() for user, a, b in zip(LOG.user_ids, LOG.offsets, LOG.offsets[1:], strict=False)
    }
    for user, a, b in zip(some.user_ids, some.offsets, some.offsets[1:], strict=False):
        assert some.items[a:b].tolist() == own[user], "a history is whole, or not there"
    whole = collaborative_vectors(LOG, ITEMS, CONFIG)
    monkeypatch.setattr("hymirec_model.collaborative.MOST_PAIRS", events * CONFIG.near)
    assert not np.array_equal(collaborative_vectors(LOG, ITEMS, CONFIG), whole)
    assert len(_sample(LOG, 1, seed=0)) == 1
