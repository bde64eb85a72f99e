"""Two published sequence models as peers: SASRec and ComiRec-SA, with a sampled softmax and our start for the items.

Shapes: B users, L positions, K interests, I items, d dimensions.
"""

from __future__ import annotations

import time
from abc import abstractmethod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.budget import share_spent
from benchmarks.quality_data import Log
from hymirec_model.collaborative import collaborative_vectors
from hymirec_model.config import ItemSpaceConfig
from hymirec_model.histories import Histories, Ints
from hymirec_model.negatives import Negatives, NegativeSampler
from hymirec_model.ranking import top_columns

LIST = 200
BATCH, NEGATIVES, RATE, WARMUP = 128, 1024, 1e-3, 50
START_STD = 0.1  # of the numbers of an item's vector


class SequenceModel(nn.Module):
    """Item embeddings and what training and ranking share.

    Parameters
    ----------
    log : Log
    dim, positions : int
        d and L.
    dropout : float
    seed : int
    """

    def __init__(self, log: Log, dim: int, positions: int, dropout: float, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.positions, self.padding = positions, log.items
        start = collaborative_vectors(log.train, log.items, ItemSpaceConfig(dim=dim, seed=seed))
        self.items = nn.Embedding(log.items + 1, dim, padding_idx=log.items)
        with torch.no_grad():
            self.items.weight[: log.items] = torch.from_numpy(START_STD * start / start.std())
        self.unknown = torch.from_numpy(np.bincount(log.train.items, minlength=log.items) == 0)
        """Items that training never sees: their vectors are 0, which is a score among others."""
        self.places = nn.Embedding(positions, dim)
        nn.init.normal_(self.places.weight, std=0.02)
        self.drop = nn.Dropout(dropout)

    @abstractmethod
    def loss(self, window_BL: Tensor, negatives: Negatives) -> Tensor:
        """Loss of windows of L + 1 items, padded at the front."""

    @abstractmethod
    def scores(self, past_BL: Tensor) -> Tensor:
        """Scores of all items, (B, I)."""

    def read(self, items_BL: Tensor) -> Tensor:
        """Vectors of items at their places."""
        places_Ld = self.places.weight[-items_BL.shape[1] :]
        read_BLd: Tensor = self.drop(self.items(items_BL) * self.places.embedding_dim**0.5 + places_Ld)
        return read_BLd

    def cross_entropy(self, state_nd: Tensor, target_n: Tensor, negatives: Negatives) -> Tensor:
        """Sampled softmax by importance, as our own losses have it."""
        positive_n = (state_nd * self.items(target_n)).sum(1)
        negative_nm = state_nd @ self.items(negatives.ids).T + negatives.bias
        negative_nm = negative_nm.masked_fill(target_n[:, None] == negatives.ids, -torch.inf)
        loss: Tensor = (torch.logaddexp(positive_n, negative_nm.logsumexp(1)) - positive_n).mean()
        return loss

    def fit(self, log: Log, seconds: float, seed: int) -> SequenceModel:
        """Train for so many seconds of CPU time, the start of the items counted by the caller."""
        histories, random = log.train, np.random.default_rng(seed)
        lengths = np.diff(histories.offsets)
        users = np.flatnonzero(lengths >= 2)
        sampler = NegativeSampler(np.bincount(histories.items, minlength=log.items), seed)
        optimizer = torch.optim.Adam(self.parameters(), lr=RATE)
        self.train()
        for step, done in enumerate(share_spent(time.process_time(), seconds)):
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / WARMUP) * (1 - 0.9 * done)
            chosen = random.choice(users, BATCH)
            # Any part of a long history, the newest part of one that fits.
            slack = np.maximum(lengths[chosen] - self.positions - 1, 0)
            ends = histories.offsets[chosen + 1] - (random.random(BATCH) * (slack + 1)).astype(np.int64)
            window_BL = self._padded(histories, chosen, ends, self.positions + 1)
            optimizer.zero_grad()
            self.loss(window_BL, sampler.draw(NEGATIVES)).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimizer.step()
        return self.eval()

    @torch.inference_mode()
    def rank(self, past: Histories, *, mask_seen: bool) -> Ints:
        """The 200 best items of every user."""
        ranked = []
        for first in range(0, len(past), 512):
            part = past.of_users(np.arange(first, min(first + 512, len(past))))
            everyone = np.arange(len(part))
            score_BI = self.scores(self._padded(part, everyone, part.offsets[1:], self.positions))
            score_BI[:, self.unknown] = -torch.inf
            if mask_seen:
                score_BI[torch.from_numpy(part.users), torch.from_numpy(part.items)] = -torch.inf
            ranked.append(top_columns(score_BI, LIST)[0].numpy())
        return np.concatenate(ranked)

    def _padded(self, histories: Histories, users: Ints, ends: Ints, length: int) -> Tensor:
        place: npt.NDArray[np.int64] = ends[:, None] + np.arange(-length, 0)
        inside = place >= histories.offsets[users][:, None]
        return torch.from_numpy(np.where(inside, histories.items[place.clip(0)], self.padding))


class SASRec(SequenceModel):
    """Self-attentive sequential recommendation (Kang and McAuley 2018, arXiv 1808.09781): every position's next item.

    Two pre-norm blocks with two heads; vectors of items serve as input and output.
    """

    def __init__(self, log: Log, dim: int, positions: int, dropout: float, seed: int) -> None:
        super().__init__(log, dim, positions, dropout, seed)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 2, 4 * dim, dropout, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.norm = nn.LayerNorm(dim)

    def states(self, items_BL: Tensor) -> Tensor:
        """State at every position, (B, L, d)."""
        state_BLd = self.read(items_BL)
        length = items_BL.shape[1]
        later = torch.full((length, length), -torch.inf).triu(1)
        for block in self.blocks:
            state_BLd = block(state_BLd, src_mask=later, is_causal=True)
        normed: Tensor = self.norm(state_BLd)
        return normed

    def loss(self, window_BL: Tensor, negatives: Negatives) -> Tensor:
        """Mean over the positions that have an item before and after."""
        past, target = window_BL[:, :-1], window_BL[:, 1:]
        real = past != self.padding
        return self.cross_entropy(self.states(past)[real], target[real], negatives)

    def scores(self, past_BL: Tensor) -> Tensor:
        """Inner products with the last state."""
        score_BI: Tensor = self.states(past_BL)[:, -1] @ self.items.weight[:-1].T
        return score_BI


class ComiRec(SequenceModel):
    """ComiRec-SA (Cen et al. 2020, arXiv 2005.09347): K attentions over a history; the best one answers for the next
    item, in training and at retrieval."""

    interests = 4

    def __init__(self, log: Log, dim: int, positions: int, dropout: float, seed: int) -> None:
        super().__init__(log, dim, positions, dropout, seed)
        self.look = nn.Sequential(
            nn.Linear(dim, 4 * dim, bias=False), nn.Tanh(), nn.Linear(4 * dim, self.interests, bias=False)
        )

    def users(self, past_BL: Tensor) -> Tensor:
        """Interests, (B, K, d)."""
        logit_BLK = self.look(self.read(past_BL)).masked_fill((past_BL == self.padding)[..., None], -1e9)
        read_BLd = self.drop(self.items(past_BL) * self.places.embedding_dim**0.5)
        interest_BKd: Tensor = logit_BLK.softmax(1).transpose(1, 2) @ read_BLd
        return interest_BKd

    def loss(self, window_BL: Tensor, negatives: Negatives) -> Tensor:
        """Of the last item."""
        interest_BKd, target_B = self.users(window_BL[:, :-1]), window_BL[:, -1]
        best_B = (interest_BKd @ self.items(target_B)[..., None])[..., 0].argmax(1)
        return self.cross_entropy(interest_BKd[torch.arange(len(best_B)), best_B], target_B, negatives)

    def scores(self, past_BL: Tensor) -> Tensor:
        """Largest inner product over the interests."""
        score_BI: Tensor = (self.users(past_BL) @ self.items.weight[:-1].T).amax(1)
        return score_BI
