from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hymirec_model.errors import InputError
from hymirec_model.light_recommender import LightRecommender

B, N, D, M, W = 3, 7, 6, 4, 8


def history(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors without the last coordinate, ages, and a mask with padding at the front."""
    torch.manual_seed(seed)
    vectors = torch.randn(B, N, D)
    vectors[..., -1] = 0
    mask = torch.arange(N) >= torch.tensor([[0], [2], [N - 1]])
    return F.normalize(vectors, dim=-1), torch.zeros(B, N, dtype=torch.long), mask


def test_before_training_an_interest_is_the_mean_by_recency() -> None:
    torch.manual_seed(0)
    light = LightRecommender(D, M, W)
    light.set_recency(1.0)
    vectors, ages, mask = history()
    rank = torch.arange(N, 0, -1)
    # Ranks are read in buckets, four a doubling, so weights are right to about a fifth.
    expected = F.normalize((vectors * mask[..., None] / rank[:, None]).sum(1), dim=-1)
    found = light(vectors, ages, mask)
    assert found.shape == (B, M, D)
    assert (found * expected[:, None]).sum(-1).min() > 0.98
    light.set_recency(0.0)
    plain = F.normalize((vectors * mask[..., None]).sum(1), dim=-1)
    torch.testing.assert_close(light(vectors, ages, mask), plain[:, None].expand(-1, M, -1))


def test_padding_changes_nothing() -> None:
    torch.manual_seed(1)
    light = LightRecommender(D, M, W)
    light.set_recency(0.7)
    vectors, ages, mask = history()
    longer = [F.pad(vectors, (0, 0, 5, 0), value=0.3), F.pad(ages, (5, 0)), F.pad(mask, (5, 0))]
    torch.testing.assert_close(light(*longer), light(vectors, ages, mask))


def test_every_interest_starts_as_the_one_that_was_trained() -> None:
    torch.manual_seed(2)
    one = LightRecommender(D, 1, W)
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    many = LightRecommender(D, M, W)
    many.start_from(one)
    torch.testing.assert_close(many(*history()), one(*history()).expand(-1, M, -1))


def test_a_start_of_another_width_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"seen \(width, dim\) \(5, 6\); allowed: \(8, 6\).*train the item space again"
    ):
        LightRecommender(D, M, W).start_from(LightRecommender(D, 1, 5))


def test_breadth_draws_interests_to_a_users_own_groups() -> None:
    torch.manual_seed(3)
    light = LightRecommender(D, 2, W)
    axes = torch.eye(D)[[0, 0, 0, 1]][None]  # three of one taste, one of another
    ages, mask = torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.bool)
    light.set_breadth(1.0)
    torch.testing.assert_close(light(axes, ages, mask)[0].sort(0).values, torch.eye(D)[[0, 1]].sort(0).values)
    light.set_breadth(0.5)
    whole = F.normalize(torch.tensor([3.0, 1, 0, 0, 0, 0]), dim=0)
    expected = F.normalize(whole + torch.eye(D)[[0, 1]], dim=-1)
    torch.testing.assert_close(light(axes, ages, mask)[0], expected)


def test_one_taste_is_every_interest() -> None:
    torch.manual_seed(4)
    light = LightRecommender(D, M, W)
    light.set_breadth(0.5)
    same = torch.eye(D)[[2, 2, 2]][None]
    found = light(same, torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(found, torch.eye(D)[2].expand(1, M, D))
