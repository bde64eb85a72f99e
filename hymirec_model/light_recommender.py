"""The light recommender: a whole long history → M coarse interests (HyMiRec, arXiv 2510.13738, stage 2).

Shapes: B users, N history positions, M coarse interests, H heads, d item dimensions, w width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymirec_model.histories import AGE_BUCKETS


class LightRecommender(nn.Module):
    """M learnt queries attend over the history once; the cost is linear in N.

    Each coarse interest is what its query's attention pools in item space plus a learnt correction, so interests
    start out inside the span of the history.

    Parameters
    ----------
    dim : int
        d, length of an item vector.
    interests : int
        M.
    width, heads : int
        Width w of the attention (a multiple of ``heads``).
    """

    def __init__(self, dim: int, interests: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.read = nn.Linear(dim, width)
        self.age = nn.Embedding(AGE_BUCKETS, width)
        self.age_bias = nn.Embedding(AGE_BUCKETS, heads)
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(interests, width) * width**-0.5)
        self.keys = nn.Linear(width, width, bias=False)
        self.values = nn.Linear(width, width)
        self.mix = nn.Linear(width, width)
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.LayerNorm(width),
        )
        self.write = nn.Linear(width, dim)
        self.nobody = nn.Parameter(torch.randn(interests, dim) * dim**-0.5)  # interests of an empty history
        nn.init.normal_(self.age.weight, std=0.02)
        nn.init.zeros_(self.age_bias.weight)

    def forward(self, history_BNd: Tensor, ages_BN: Tensor, mask_BN: Tensor) -> Tensor:
        """Return coarse interests of shape (B, M, d), unit vectors.

        Parameters
        ----------
        history_BNd : Tensor of shape (B, N, d)
            Unit item vectors.
        ages_BN : Tensor of shape (B, N), long
            Age buckets.
        mask_BN : Tensor of shape (B, N), bool
            True where there is an event.
        """
        batch, length, _ = history_BNd.shape
        count, width = self.queries.shape
        part = width // self.heads
        events_BNw = self.norm(self.read(history_BNd) + self.age(ages_BN))
        keys_BHNp = self.keys(events_BNw).view(batch, length, self.heads, part).transpose(1, 2)
        values_BHNp = self.values(events_BNw).view(batch, length, self.heads, part).transpose(1, 2)
        queries_HMp = self.queries.view(count, self.heads, part).transpose(0, 1)
        logits_BHMN = queries_HMp @ keys_BHNp.transpose(2, 3) * part**-0.5 * math.sqrt(width)
        logits_BHMN = logits_BHMN + self.age_bias(ages_BN).transpose(1, 2)[:, :, None]
        logits_BHMN = logits_BHMN.float().masked_fill(~mask_BN[:, None, None], -1e9)
        attention_BHMN = torch.softmax(logits_BHMN, dim=-1).to(history_BNd.dtype)
        pooled_BMw = (attention_BHMN @ values_BHNp).transpose(1, 2).reshape(batch, count, width)
        hidden_BMw = self.queries + self.mix(pooled_BMw)
        hidden_BMw = hidden_BMw + self.think(hidden_BMw)
        centre_BMd = attention_BHMN.mean(1) @ history_BNd
        coarse_BMd = 3 * centre_BMd + self.write(hidden_BMw)
        coarse_BMd = torch.where(mask_BN.any(1)[:, None, None], coarse_BMd, self.nobody.to(coarse_BMd.dtype))
        return F.normalize(coarse_BMd.float(), dim=-1)
