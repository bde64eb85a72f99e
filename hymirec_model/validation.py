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
from hymirec_model.habits import Bonus, Habits, bonus_of
from hymirec_model.histories import DAY_SECONDS, Batch, Histories, Ints
from hymirec_model.inference import calibration_sample, interest_weights
from hymirec_model.merging import Merge
from hymirec_model.popularity_shift import PopularityShift, Shift
from hymirec_model.retrieval import chunks, top_items, top_items_each

if TYPE_CHECKING:
    from torch import Tensor

    from hymirec_model.negatives import Negatives
    from hymirec_model.training_step import TrainingStep
    from hymirec_model.window_sampler import WindowSampler

LIST = 50
WEEK = 7 * DAY_SECONDS
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

    @torch.no_grad()
    def shift_recalls(
        self, log: PopularityShift, sampler: WindowSampler, shifts: Sequence[Shift]
    ) -> dict[Shift, float]:
        """Recall@50 of what is taken within a week from a window's beginning, by shifts as they were then.

        A release serves for a day, and a window of ten items may go on for a year.

        Parameters
        ----------
        log : PopularityShift
        sampler : WindowSampler
            Whose held windows these are.
        shifts : sequence of Shift

        Returns
        -------
        dict
            By shift, with the model's own habits; empty without windows.
        """
        moments, soon_VW = sampler.held_moments(WEEK)
        found: dict[Shift, list[npt.NDArray[np.float64]]] = {shift: [] for shift in shifts}
        known_n = self._known.cpu().numpy()
        self.reader.eval()
        first = 0
        for batch in self.windows:
            past = self._pasts.of_users(np.arange(first, first + len(batch.items_BN)))
            scoring = self._scoring(batch, light_only=False)
            width, merge, scale = scoring[3:]
            own = bonus_of(past, self.reader.model.habits, merge, scale)
            for part in chunks(len(past), len(self._known)):
                rows = np.arange(len(past))[part]
                targets = (batch.targets_BW[part].cpu().numpy(), soon_VW[first:][rows])
                bonus = _of_users(own, rows)
                own_or_none = {"exclude": bonus[:2]} if self.mask_seen else {"bonus": bonus}
                for shift, recalls in found.items():
                    shift_Bn = log.at(moments[first:][rows], shift)[:, known_n]
                    added = torch.from_numpy(shift_Bn / (scale if merge == "max" else 1.0))
                    settings = (scoring[0][part], scoring[1][part], *scoring[2:])
                    lists, _ = top_items(*settings, shift=added, **own_or_none)
                    recalls.append(self._recall(lists, *targets, width))
            first += len(past)
        return {shift: float(np.concatenate(recalls).mean()) for shift, recalls in found.items() if recalls}

    def _of(self, batch: Batch, past: Histories, light_only: bool, habits: Sequence[Habits]) -> npt.NDArray[np.float64]:
        """Recall of shape (habits, B)."""
        settings = self._scoring(batch, light_only)
        width, merge, scale = settings[3:]
        if self.mask_seen:
            lists = [top_items(*settings, exclude=(past.offsets, past.items))[0]]
        else:
            _, lists = top_items_each(*settings, bonuses=[bonus_of(past, each, merge, scale) for each in habits])
        targets = batch.targets_BW.cpu().numpy(), batch.target_mask_BW.cpu().numpy()
        return np.stack([self._recall(found, *targets, width) for found in lists])

    def _scoring(self, batch: Batch, light_only: bool) -> tuple[Tensor, Tensor, Tensor, int, Merge, float]:
        """Interests, weights, vectors of the items with events, length of the lists, merge and scale."""
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
        return interest_BKd.float(), weight_BK, vectors, min(LIST, len(vectors)), merge, scale

    def _recall(
        self, found_Bn: Tensor, targets_BW: Ints, counts_BW: npt.NDArray[np.bool_], width: int
    ) -> npt.NDArray[np.float64]:
        """Share of each window's distinct targets that count in its list, of shape (B,)."""
        targets = [np.unique(row[counts]) for row, counts in zip(targets_BW, counts_BW, strict=True)]
        relevant = np.cumsum([0, *map(len, targets)]), np.concatenate(targets)
        ranked = torch.where(found_Bn >= 0, self._known[found_Bn], -1).cpu().numpy()
        return metrics.recall_at(ranked, relevant, width)


def _of_users(bonus: Bonus, users: Ints) -> Bonus:
    """The bonus of some users that follow one another."""
    offsets, items, values = bonus
    own = slice(offsets[users[0]], offsets[users[-1] + 1])
    return offsets[users[0] : users[-1] + 2] - offsets[users[0]], items[own], values[own]
