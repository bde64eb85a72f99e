"""The light recommender: a whole long history → M coarse interests (HyMiRec, arXiv 2510.13738, stage 2).

Shapes: B users, N history positions, M coarse interests, n items, d item dimensions, w width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymirec_model.errors import require
from hymirec_model.histories import AGE_BUCKETS, RANK_BUCKETS, rank_buckets, rank_of_bucket
from hymirec_model.taste_groups import taste_groups

CORRECTION = 0.1  # of the learnt correction's pace: at 1 it first learns what is popular, at the cost of one's own


class LightRecommender(nn.Module):
    """Each coarse interest pools the whole history, and one group of its items more than the others.

    The groups are a user's own (:mod:`hymirec_model.taste_groups`): nobody needs to have an interest in everything
    that a catalogue has, and one person's eight interests may all lie in one corner of it. A coarse interest is the
    direction of what its attention pools in item space, a share ``breadth`` of it from its group alone, plus a learnt
    correction, which starts at zero. Before any training all are the same mean of the history's items, with more
    weight on new ones (see :meth:`set_recency`); :meth:`set_breadth` draws them apart. The cost is linear in N.

    An event is known by its item, its age, and its rank from the newest: ages say nothing where people rate a hundred
    films in one evening.

    Parameters
    ----------
    dim : int
        d, length of an item vector.
    interests : int
        M.
    width : int
        w, of the learnt correction.
    """

    def __init__(self, dim: int, interests: int, width: int) -> None:
        super().__init__()
        # The last coordinate of an item vector only makes its length 1 (item_space.py): it says nothing of taste.
        self.taste = nn.Parameter(torch.cat([torch.ones(dim - 1), torch.zeros(1)]))
        self.breadth = nn.Parameter(torch.zeros(interests))
        self.read = nn.Linear(dim, width)
        self.age = nn.Embedding(AGE_BUCKETS, width)
        self.norm = nn.LayerNorm(width)
        self.attend = nn.Linear(width, interests)
        self.age_bias = nn.Embedding(AGE_BUCKETS, interests)
        self.rank = nn.Embedding(RANK_BUCKETS, width)
        self.rank_bias = nn.Embedding(RANK_BUCKETS, interests)
        self.values = nn.Linear(width, width)
        self.start = nn.Parameter(torch.randn(interests, width) * 0.3)
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
            nn.LayerNorm(width),
        )
        self.write = nn.Linear(width, dim)
        self.newcomer: Tensor
        self.register_buffer("newcomer", torch.full((dim,), dim**-0.5))  # every interest of an empty history
        for weight in (self.age.weight, self.rank.weight):
            nn.init.normal_(weight, std=0.02)
        for weight in (self.attend.weight, self.write.weight, self.age_bias.weight, self.rank_bias.weight):
            nn.init.zeros_(weight)
        for bias in (self.attend.bias, self.write.bias):
            nn.init.zeros_(bias)

    @torch.no_grad()
    def set_recency(self, exponent: float) -> None:
        """Let the r-th newest event (r = 1, 2, …) weigh r ** -exponent at the start."""
        self.rank_bias.weight.copy_(-exponent * torch.log(1 + rank_of_bucket())[:, None])

    @torch.no_grad()
    def start_from(self, other: LightRecommender) -> None:
        """Let every interest start as the only one of a trained recommender.

        Raises
        ------
        InputError
            If the other is of another width, or for other item vectors.
        """
        seen, needed = (tuple(light.read.weight.shape) for light in (other, self))
        require(
            seen == needed,
            f"light recommender of stage 1: seen (width, dim) {seen}; allowed: {needed}, as recommender.light_width "
            "and item_space.dim say; train the item space again",
        )
        for name, mine in self.named_parameters():
            if name != "breadth":  # which one interest has no use for
                mine.copy_(other.get_parameter(name).expand_as(mine))  # one interest's row or column for all

    @torch.no_grad()
    def set_breadth(self, share: float) -> None:
        """Let every interest take so much from its own group of the history at the start, and the rest from all."""
        self.breadth.fill_(share)

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
        tastes_BNd = history_BNd * self.taste
        directions_BNd = F.normalize(tastes_BNd, dim=-1)
        ranks_N = rank_buckets(history_BNd.shape[1]).to(ages_BN.device)
        events_BNw = self.norm(self.read(directions_BNd) + self.age(ages_BN) + self.rank(ranks_N))
        logits_BNM = self.attend(events_BNw) + self.age_bias(ages_BN) + self.rank_bias(ranks_N)
        logits_BNM = logits_BNM.float().masked_fill(~mask_BN[..., None], -1e9)
        attention_BMN = torch.softmax(logits_BNM, dim=1).mT
        whole_BMd = F.normalize(attention_BMN @ tastes_BNd.float(), dim=-1)
        if self.breadth.shape[0] > 1:
            groups_BMN = taste_groups(directions_BNd, attention_BMN.mean(1), mask_BN, len(self.breadth)).mT
            inside_BMN = attention_BMN * groups_BMN
            inside_BMN = inside_BMN / inside_BMN.sum(-1, keepdim=True).clamp_min(1e-9)
            group_BMd = F.normalize(inside_BMN @ tastes_BNd.float(), dim=-1)
            share_M1 = self.breadth[:, None]
            whole_BMd = F.normalize((1 - share_M1) * whole_BMd + share_M1 * group_BMd, dim=-1)
            attention_BMN = (1 - share_M1) * attention_BMN + share_M1 * inside_BMN
        hidden_BMw = self.start + attention_BMN.to(events_BNw.dtype) @ self.values(events_BNw)
        hidden_BMw = hidden_BMw + self.think(hidden_BMw)
        coarse_BMd = whole_BMd + CORRECTION * self.write(hidden_BMw).float()
        return self.or_newcomer(F.normalize(coarse_BMd, dim=-1), mask_BN)

    def or_newcomer(self, interest_BKd: Tensor, mask_BN: Tensor) -> Tensor:
        """The interests of users who have a history, and the newcomer's for the others."""
        return torch.where(mask_BN.any(1)[:, None, None], interest_BKd, self.newcomer)
