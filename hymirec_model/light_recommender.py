"""The light recommender: a whole long history → M coarse interests (HyMiRec, arXiv 2510.13738, stage 2).

Shapes: B users, N history positions, M coarse interests, n items, d item dimensions, w width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymirec_model.errors import require
from hymirec_model.histories import AGE_BUCKETS, RANK_BUCKETS, rank_buckets, rank_of_bucket
from hymirec_model.matching import cluster_targets

CORRECTION = 0.1  # of the learnt correction's pace: at 1 it first learns what is popular, at the cost of one's own
# How sharply a coarse interest starts out on its region. On groceries, before any training, recall@50 was .231 for one
# interest, .234 for eight with 2, and .231 for eight with 4.
FOCUS = 2.0


class LightRecommender(nn.Module):
    """Each coarse interest pools the history once by an attention of its own; the cost is linear in N.

    A coarse interest is the direction of what its attention pools in item space plus a learnt correction, which starts
    at zero: before any training it is a mean of the history's items, in its own region (see :meth:`spread`) and with
    more weight on new ones (see :meth:`set_recency`).

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
        self.look = nn.Parameter(torch.zeros(interests, dim))  # where in item space an interest looks
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
        self.nobody = nn.Parameter(torch.randn(interests, dim) * dim**-0.5)  # interests of an empty history
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
            mine.copy_(other.get_parameter(name).expand_as(mine))  # one interest's row or column for all

    @torch.no_grad()
    def spread(self, vectors: Tensor, seed: int = 0) -> None:
        """Let every coarse interest start on a region of its own: those of a cosine k-means of item vectors.

        Parameters
        ----------
        vectors : Tensor of shape (n, d)
            Vectors of well-known items; all pairs are compared, so some thousands at most.
        seed : int, default=0
        """
        tastes_nd = vectors * self.taste
        tastes_nd = tastes_nd - tastes_nd.mean(0)  # else all regions lie around the popular ones
        every_1n = torch.ones(1, len(vectors), dtype=torch.bool, device=vectors.device)
        centres_1Md, _, _ = cluster_targets(tastes_nd[None], every_1n, len(self.look), seed)
        self.look.add_(FOCUS * centres_1Md[0])

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
        logits_BNM = self.attend(events_BNw) + directions_BNd @ self.look.T + self.age_bias(ages_BN)
        logits_BNM = logits_BNM + self.rank_bias(ranks_N)
        logits_BNM = logits_BNM.float().masked_fill(~mask_BN[..., None], -1e9)
        attention_BMN = torch.softmax(logits_BNM, dim=1).transpose(1, 2).to(tastes_BNd.dtype)
        hidden_BMw = self.start + attention_BMN @ self.values(events_BNw)
        hidden_BMw = hidden_BMw + self.think(hidden_BMw)
        pooled_BMd = F.normalize((attention_BMN @ tastes_BNd).float(), dim=-1)
        coarse_BMd = pooled_BMd + CORRECTION * self.write(hidden_BMw).float()
        coarse_BMd = torch.where(mask_BN.any(1)[:, None, None], coarse_BMd, self.nobody)
        return F.normalize(coarse_BMd, dim=-1)
