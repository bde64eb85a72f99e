from __future__ import annotations

import torch
import torch.nn.functional as F

from hymirec_model.newcomers import popular_direction


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
