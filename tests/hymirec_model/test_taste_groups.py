from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hymirec_model.taste_groups import taste_groups

D = 5


def planted(groups: int, events: int, seed: int) -> tuple[Tensor, Tensor]:
    """A user's events around so many orthogonal directions, in a random order, and which one each is around."""
    random = torch.Generator().manual_seed(seed)
    label = torch.arange(events) % groups
    label = label[torch.randperm(events, generator=random)]
    near = torch.eye(D)[label] + 0.1 * torch.randn(events, D, generator=random)
    return F.normalize(near, dim=-1), label


def test_separate_tastes_become_separate_groups() -> None:
    for seed in range(5):
        vectors, label = planted(4, 40, seed)
        weight = torch.rand(1, 40, generator=torch.Generator().manual_seed(seed)) + 0.1
        found = taste_groups(vectors[None], weight, torch.ones(1, 40, dtype=torch.bool), 4)[0].argmax(1)
        together = found[:, None] == found
        assert torch.equal(together, label[:, None] == label)


def test_few_tastes_share_the_places() -> None:
    vectors = torch.eye(D)[[0, 1, 0, 1, 0]]
    found = taste_groups(vectors[None], torch.full((1, 5), 0.2), torch.ones(1, 5, dtype=torch.bool), 5)[0]
    first, second = torch.tensor([1.0, 0, 1, 0, 1]), torch.tensor([0.0, 1, 0, 1, 0])
    assert torch.equal(found.T, torch.stack([first, second, first, second, first]))


@given(st.integers(0, 2**31 - 1), st.integers(1, 12), st.integers(1, 6), st.integers(0, 5))
def test_every_event_has_a_group_whatever_stands_beside_it(seed: int, events: int, groups: int, pad: int) -> None:
    random = torch.Generator().manual_seed(seed)
    vectors = F.normalize(torch.randn(2, events, D, generator=random), dim=-1)
    weight = torch.rand(2, events, generator=random)
    mask = torch.ones(2, events, dtype=torch.bool)
    found = taste_groups(vectors, weight, mask, groups)
    assert found.shape == (2, events, groups) and bool((found.sum(-1) >= 1).all())
    assert bool(found.any(1).all()), "no place is empty"
    # Neither padding nor the other users of a batch change a user's groups.
    wider = [F.pad(vectors, (0, 0, pad, 0), value=0.4), F.pad(weight, (pad, 0), value=9.0), F.pad(mask, (pad, 0))]
    padded = taste_groups(*wider, groups)  # type: ignore[arg-type]
    assert torch.equal(padded[:, pad:], found) and not padded[:, :pad].any()
    assert torch.equal(taste_groups(vectors[1:], weight[1:], mask[1:], groups), found[1:])
