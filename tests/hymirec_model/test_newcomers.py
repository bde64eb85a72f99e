from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hymirec_model.histories import DAY_SECONDS, Histories
from hymirec_model.newcomers import lately_popular, popular_direction

DAYS, ITEMS = 300, 200


def one_event_each(items: np.ndarray) -> Histories:
    """Users of one event each, as many of them on every day."""
    stamps = np.arange(len(items)) * DAYS * DAY_SECONDS // len(items)
    users = np.array([f"u{number}" for number in range(len(items))], object)
    return Histories(users, np.arange(len(items) + 1), items, stamps)


@pytest.mark.parametrize("moves", [True, False])
def test_old_events_count_less_only_where_what_people_take_moves_on(moves: bool) -> None:
    random, events = np.random.default_rng(0), 20_000
    front = np.arange(events) * 100 // events if moves else 0  # the first of the hundred items that are in fashion
    histories = one_event_each(front + random.integers(100, size=events))
    found, whole = lately_popular(histories, ITEMS).numpy(), np.bincount(histories.items, minlength=ITEMS)
    if moves:
        assert set(np.argsort(-found)[:50]) <= set(range(90, ITEMS)) and min(np.argsort(-whole)[:50]) < 90
    else:
        assert found.tolist() == whole.tolist()


def test_a_log_of_one_moment_counts_whole() -> None:
    histories = one_event_each(np.array([3, 3, 1]))
    now = Histories(histories.user_ids, histories.offsets, histories.items, np.full(3, 7))
    assert lately_popular(now, 5).tolist() == [0, 1, 0, 2, 0]


def test_what_everybody_takes_comes_first_even_where_most_is_taken_elsewhere() -> None:
    """Thirty slow sellers around one axis outnumber ten bestsellers, which lie apart from one another."""
    random = torch.Generator().manual_seed(0)
    slow = torch.eye(16)[0] + 0.02 * torch.randn(30, 16, generator=random)
    best = torch.eye(16)[torch.arange(10) + 3]
    vectors = F.normalize(torch.cat([slow, best]), dim=-1)
    counts = torch.cat([torch.full((30,), 20), torch.full((10,), 50)])
    found = popular_direction(vectors, counts)
    mean = F.normalize(counts.float() @ vectors, dim=0)
    assert abs(float(found.norm()) - 1) < 1e-5
    assert set((vectors @ found).topk(10).indices.tolist()) == set(range(30, 40))
    assert set((vectors @ mean).topk(10).indices.tolist()) != set(range(30, 40))
