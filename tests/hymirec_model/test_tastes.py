from __future__ import annotations

import torch

from hymirec_model.tastes import tastes


def test_rare_items_are_not_alike_for_being_rare() -> None:
    """Items with few events have short tastes, and a last coordinate that makes up for it (collaborative.py)."""
    generator = torch.Generator().manual_seed(1)
    taste = 0.03 * torch.nn.functional.normalize(torch.randn(3, 8, generator=generator), dim=-1)
    taste[2] = 0.5 * taste[0]
    rare = torch.cat([taste, (1 - taste.square().sum(-1, keepdim=True)).sqrt()], dim=-1)
    assert (rare @ rare.T).min() > 0.99
    likeness = tastes(rare) @ tastes(rare).T
    assert likeness[0, 2] > 0.999 and likeness[0, 1].abs() < 0.9
    assert not tastes(torch.eye(9)[[8]]).any(), "an item without a taste is like none"
