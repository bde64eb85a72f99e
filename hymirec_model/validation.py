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
from hymirec_model.histories import DAY_SECONDS, Batch, Histories, Ints
from hymirec_model.inference import calibration_sample, interest_weights
from hymirec_model.merging import Merge, merge_scores
from hymirec_model.popularity_shift import PopularityShift, Shift
from hymirec_model.ranking import top_columns
from hymirec_model.retrieval import chunks, top_items, top_items_each

if TYPE_CHECKING:
    from torch import Tensor

    from hymirec_model.negatives import Negatives
    from hymirec_model.training_step import Found, TrainingStep
    from hymirec_model.window_sampler import WindowSampler

LIST = 50
WEEK = 7 * DAY_SECONDS
LOGGED = ("loss", "coarse_loss", "largest_interest_share", "pairwise_interest_cosine")


class Validation:
    """Losses and recall on held windows.

    The LLM's pass over the windows takes far longer than any measurement: one :meth:`read` serves all of them.

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
    def read(self, *, light_only: bool) -> list[Found]:
        """What the model, as it is now, finds for each batch of windows.

        Parameters
        ----------
        light_only : bool
            The coarse interests alone.
        """
        was_training = self.reader.training
        self.reader.eval()
        read = [self.reader(batch, light_only=light_only) for batch in self.windows]
        self.reader.train(was_training)
        return read

    @torch.no_grad()
    def losses(self, read: list[Found]) -> dict[str, float]:
        """Means over the windows of what training logs; ``read`` must have interests."""
        logged = [
            self.step.loss(found, batch, self.negatives, 0)[1] for found, batch in zip(read, self.windows, strict=True)
        ]
        return {f"validation_{name}": float(np.mean([row[name].item() for row in logged])) for name in LOGGED if logged}

    @torch.no_grad()
    def recalls(self, read: list[Found], habits: Sequence[Habits]) -> dict[Habits, float]:
        """Recall@50 of the windows' items among all items with events, as retrieval would find them.

        Parameters
        ----------
        read : list of Found
            Where it has no interests, lists are by the coarse ones, merged as they are trained.
        habits : sequence of Habits
            Where lists leave out what a user had, :data:`~hymirec_model.habits.NONE` alone is allowed.

        Returns
        -------
        dict
            By habits; empty without windows.
        """
        if not self.windows:
            return {}
        first, recalls = 0, []
        for batch, found in zip(self.windows, read, strict=True):
            past = self._pasts.of_users(np.arange(first, first + len(batch.items_BN)))
            recalls.append(self._of(batch, past, found, habits))
            first += len(past)
        return dict(zip(habits, np.concatenate(recalls, axis=1).mean(1).tolist(), strict=True))

    @torch.no_grad()
    def shift_recalls(
        self, read: list[Found], log: PopularityShift, sampler: WindowSampler, shifts: Sequence[Shift]
    ) -> dict[Shift, npt.NDArray[np.float64]]:
        """Recall@50 of what is taken within a week from each window's beginning, by shifts as they were then.

        A release serves for a day, and a window of ten items may go on for a year.

        Parameters
        ----------
        read : list of Found
        log : PopularityShift
        sampler : WindowSampler
            Whose held windows these are.
        shifts : sequence of Shift

        Returns
        -------
        dict
            By shift, with the model's own habits, of shape (windows,); empty without windows.
        """
        moments, soon_VW = sampler.held_moments(WEEK)
        recalls: dict[Shift, list[npt.NDArray[np.float64]]] = {shift: [] for shift in shifts}
        known_n, habits = self._known.cpu().numpy(), self.reader.model.habits
        first = 0
        for batch, found in zip(self.windows, read, strict=True):
            interest_BKd, weight_BK, vectors, width, merge, scale = self._scoring(found)
            for part in chunks(len(interest_BKd), len(vectors)):
                rows = first + np.arange(len(interest_BKd))[part]
                score_Bn = merge_scores(interest_BKd[part], weight_BK[part], vectors, merge, scale)
                past = self._pasts.of_users(rows)
                offsets, items, values = bonus_of(past, habits, merge, scale)
                own = np.repeat(np.arange(len(rows)), np.diff(offsets)), items
                # What nobody had taken yet was not there to be listed.
                later_Bn = torch.from_numpy(log.first[known_n] >= moments[rows, None]).to(score_Bn.device)
                score_Bn.masked_fill_(later_Bn, -torch.inf)
                score_Bn[own] += -torch.inf if self.mask_seen else torch.from_numpy(values).to(score_Bn.device)
                targets = batch.targets_BW[part].cpu().numpy(), soon_VW[rows]
                for days in dict.fromkeys(shift.days for shift in shifts):
                    whole_Bn = torch.from_numpy(log.at(moments[rows], Shift(days, 1.0), known_n)).to(score_Bn.device)
                    whole_Bn /= scale if merge == "max" else 1.0
                    for shift in (shift for shift in shifts if shift.days == days):
                        listed, _ = top_columns(score_Bn + shift.strength * whole_Bn, width)
                        recalls[shift].append(self._recall(listed, *targets, width))
            first += len(interest_BKd)
        return {shift: np.concatenate(parts) for shift, parts in recalls.items() if parts}

    def _of(self, batch: Batch, past: Histories, found: Found, habits: Sequence[Habits]) -> npt.NDArray[np.float64]:
        """Recall of shape (habits, B)."""
        settings = self._scoring(found)
        width, merge, scale = settings[3:]
        if self.mask_seen:
            lists = [top_items(*settings, exclude=(past.offsets, past.items))[0]]
        else:
            _, lists = top_items_each(*settings, bonuses=[bonus_of(past, each, merge, scale) for each in habits])
        targets = batch.targets_BW.cpu().numpy(), batch.target_mask_BW.cpu().numpy()
        return np.stack([self._recall(listed, *targets, width) for listed in lists])

    def _scoring(self, found: Found) -> tuple[Tensor, Tensor, Tensor, int, Merge, float]:
        """Interests, weights, vectors of the items with events, length of the lists, merge and scale."""
        vectors = self.reader.items.vectors_Id[self._known]
        coarse_BMd, interest_BKd, scale_ = found
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
        self, listed_Bn: Tensor, targets_BW: Ints, counts_BW: npt.NDArray[np.bool_], width: int
    ) -> npt.NDArray[np.float64]:
        """Share of each window's distinct targets that count in its list, of shape (B,)."""
        relevant = np.concatenate([[0], counts_BW.sum(1).cumsum()]), targets_BW[counts_BW]
        ranked = torch.where(listed_Bn >= 0, self._known[listed_Bn], -1).cpu().numpy()
        return metrics.recall_at(ranked, relevant, width)
