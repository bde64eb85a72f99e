"""How good a recommender in training is, on windows that training does not see.

Shapes: B users, K interests, W targets, n items, d item dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from hymirec_model import metrics
from hymirec_model.habits import Habits, bonus_of
from hymirec_model.histories import Batch, Histories
from hymirec_model.inference import calibration_sample, interest_weights
from hymirec_model.merging import Merge
from hymirec_model.retrieval import top_items, top_items_each

if TYPE_CHECKING:
    from hymirec_model.negatives import Negatives
    from hymirec_model.training_step import TrainingStep

LIST = 50
LOGGED = ("loss", "coarse_loss", "largest_interest_share", "pairwise_interest_cosine")


class Validation:
    """Losses and recall on held windows.

    Parameters
    ----------
    step : TrainingStep
    windows : list of Batch
        May be empty: then no figure is given.
    pasts : Histories
        All that came before each window, whose batches may have less of it.
    negatives : Negatives
        The same for every call, so that losses compare.
    device : torch.device
    mask_seen : bool
        Leave the items of a window's history out of the ranking.
    """

    def __init__(
        self,
        step: TrainingStep,
        windows: list[Batch],
        pasts: Histories,
        negatives: Negatives,
        device: torch.device,
        *,
        mask_seen: bool,
    ) -> None:
        self.step, self.reader, self.negatives, self.mask_seen = step, step.reader, negatives, mask_seen
        self.windows = [window.to(device) for window in windows]
        counts_I = self.reader.items.counts_I
        self._known = counts_I.nonzero()[:, 0]
        self._place = torch.full_like(counts_I, -1)
        self._place[self._known] = torch.arange(len(self._known), device=device)
        pasts = pasts.only_items((counts_I > 0).cpu().numpy())
        self._pasts = replace(pasts, items=self._place.cpu().numpy()[pasts.items])

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """Means over the windows of what training logs."""
        logged = [
            self.step.loss(self.reader(batch, light_only=False), batch, self.negatives, 0)[1] for batch in self.windows
        ]
        return {f"validation_{name}": float(np.mean([row[name].item() for row in logged])) for name in LOGGED if logged}

    @torch.no_grad()
    def recalls(self, habits: Sequence[Habits], *, light_only: bool) -> dict[Habits, float]:
        """Recall@50 of the windows' items among all items with events, as retrieval would find them.

        Parameters
        ----------
        habits : sequence of Habits
            Where lists leave out what a user had, :data:`~hymirec_model.habits.NONE` alone is allowed.
        light_only : bool
            By the coarse interests, merged as they are trained, instead of the interests.

        Returns
        -------
        dict
            By habits; empty without windows.
        """
        if not self.windows:
            return {}
        was_training = self.reader.training
        self.reader.eval()
        first, found = 0, []
        for batch in self.windows:
            past = self._pasts.of_users(np.arange(first, first + len(batch.items_BN)))
            found.append(self._of(batch, past, light_only, habits))
            first += len(past)
        self.reader.train(was_training)
        return dict(zip(habits, np.concatenate(found, axis=1).mean(1).tolist(), strict=True))

    def _of(self, batch: Batch, past: Histories, light_only: bool, habits: Sequence[Habits]) -> npt.NDArray[np.float64]:
        """Recall of shape (habits, B)."""
        vectors = self.reader.items.vectors_Id[self._known]
        coarse_BMd, interest_BKd, scale_ = self.reader(batch, light_only=light_only)
        merge: Merge = "lse"
        if interest_BKd is None:
            interest_BKd = coarse_BMd
        else:
            merge = self.reader.model.config.merge
        scale = float(scale_)
        sample = vectors[torch.from_numpy(calibration_sample(len(vectors)))].cpu().numpy()
        weights = interest_weights(interest_BKd.float().cpu().numpy(), merge, scale, sample)
        weight_BK = torch.from_numpy(weights).to(vectors.device)
        width = min(LIST, len(vectors))
        targets = [
            np.unique(row[mask].cpu().numpy()) for row, mask in zip(batch.targets_BW, batch.target_mask_BW, strict=True)
        ]
        offsets = np.cumsum([0, *map(len, targets)])
        relevant, recall = (offsets, np.concatenate(targets)), []
        settings = (interest_BKd.float(), weight_BK, vectors, width, merge, scale)
        if self.mask_seen:
            lists = [top_items(*settings, exclude=(past.offsets, past.items))[0]]
        else:
            _, lists = top_items_each(*settings, bonuses=[bonus_of(past, each, merge, scale) for each in habits])
        for found in lists:
            ranked = torch.where(found >= 0, self._known[found], -1).cpu().numpy()
            recall.append(metrics.recall_at(ranked, relevant, width))
        return np.stack(recall)
