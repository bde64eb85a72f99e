"""How good a recommender in training is, on windows that training does not see.

Shapes: B users, K interests, W targets, n items, d item dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from hymirec_model import metrics
from hymirec_model.histories import Batch, Ints
from hymirec_model.inference import calibration_sample, interest_weights
from hymirec_model.retrieval import Merge, top_items

if TYPE_CHECKING:
    from hymirec_model.negatives import Negatives
    from hymirec_model.training import Items, TrainingStep

LIST = 50
LOGGED = ("loss", "coarse_loss", "largest_interest_share", "pairwise_interest_cosine")


class Validation:
    """Losses and recall on held windows.

    Parameters
    ----------
    step : TrainingStep
    windows : list of Batch
        May be empty: then no figure is given.
    items : Items
        On the step's device, as the windows come to be.
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
        items: Items,
        negatives: Negatives,
        device: torch.device,
        *,
        mask_seen: bool,
    ) -> None:
        self.step, self.items, self.negatives, self.mask_seen = step, items, negatives, mask_seen
        self.windows = [window.to(device) for window in windows]
        self._known = items.counts_I.nonzero()[:, 0]
        self._place = torch.full_like(items.counts_I, -1)
        self._place[self._known] = torch.arange(len(self._known), device=self._known.device)

    @torch.no_grad()
    def losses(self) -> dict[str, float]:
        """Means over the windows of what training logs."""
        logged = [self.step(batch, self.items, self.negatives, 0, light_only=False)[1] for batch in self.windows]
        return {f"validation_{name}": float(np.mean([row[name].item() for row in logged])) for name in LOGGED if logged}

    @torch.no_grad()
    def recall(self, *, light_only: bool) -> float | None:
        """Recall@50 of the windows' items among all items with events, as retrieval would find them.

        Parameters
        ----------
        light_only : bool
            By the coarse interests, merged as they are trained, instead of the interests.

        Returns
        -------
        float or None
            None without windows.
        """
        if not self.windows:
            return None
        was_training = self.step.training
        self.step.eval()
        found = np.concatenate([self._of(batch, light_only) for batch in self.windows])
        self.step.train(was_training)
        return float(found.mean())

    def _of(self, batch: Batch, light_only: bool) -> npt.NDArray[np.float64]:
        model, vectors = self.step.model, self.items.vectors_Id[self._known]
        history_BNd = self.step.code_table(self.items.codes_IL[batch.items_BN], self.items.generation_I[batch.items_BN])
        interest_BKd = model.light(history_BNd, batch.ages_BN, batch.mask_BN)
        merge: Merge = "lse"
        if not light_only:
            interest_BKd = model.llm(interest_BKd, history_BNd, batch.ages_BN, batch.mask_BN)
            merge = model.config.merge
        scale = float(model.scale)
        sample = vectors[torch.from_numpy(calibration_sample(len(vectors)))].cpu().numpy()
        weights = interest_weights(interest_BKd.float().cpu().numpy(), merge, scale, sample)
        weight_BK = torch.from_numpy(weights).to(vectors.device)
        width = min(LIST, len(vectors))
        seen = self._seen(batch) if self.mask_seen else None
        found, _ = top_items(interest_BKd.float(), weight_BK, vectors, width, merge, scale, exclude=seen)
        ranked = np.where(found.cpu().numpy() >= 0, self._known[found].cpu().numpy(), -1)
        targets = [
            np.unique(row[mask].cpu().numpy()) for row, mask in zip(batch.targets_BW, batch.target_mask_BW, strict=True)
        ]
        offsets = np.cumsum([0, *map(len, targets)])
        return metrics.recall_at(ranked, (offsets, np.concatenate(targets)), width)

    def _seen(self, batch: Batch) -> tuple[Ints, Ints]:
        """Offsets and places in the ranking of what stands in each history."""
        mask_BN = batch.mask_BN & (self._place[batch.items_BN] >= 0)
        offsets = np.concatenate([[0], mask_BN.sum(1).cumsum(0).cpu().numpy()]).astype(np.int64)
        return offsets, self._place[batch.items_BN][mask_BN].cpu().numpy()
