"""Interests and items as random unit vectors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hymirec_model.merging import Merge

MERGES: tuple[Merge, ...] = ("max", "lse", "calibrated")


def unit(*shape: int, seed: int) -> Tensor:
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def people() -> tuple[Tensor, Tensor, Tensor]:
    """Interests and weights of twenty users, some without their third interest, and 300 items."""
    weights = torch.rand(20, 4, generator=torch.Generator().manual_seed(2))
    weights[:5, 2] = 0
    return unit(20, 4, 16, seed=0), weights, unit(300, 16, seed=1)
