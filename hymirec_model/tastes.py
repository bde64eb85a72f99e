"""What an item vector says of taste: all of it but the last coordinate.

That one only makes the length 1 (:mod:`hymirec_model.collaborative`): it is close to 1 for items with few events, which
are no more like one another for it.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def tastes(vectors: Tensor) -> Tensor:
    """Unit vectors of shape (…, d - 1) of item vectors of shape (…, d); zero where an item has no taste."""
    return F.normalize(vectors[..., :-1], dim=-1)
