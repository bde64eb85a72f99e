"""One step of stage 2: what the model finds for a batch, its loss, and the gradient, in parts where memory is short.

Shapes: B users, W targets, M coarse interests, K interests, n negatives, d item dimensions.
"""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hymirec_model.code_table import CodeTable
from hymirec_model.config import RecommenderTrainingConfig
from hymirec_model.devices import training_dtype
from hymirec_model.habits import among_own
from hymirec_model.histories import Batch
from hymirec_model.hymirec import HyMiRec
from hymirec_model.losses import (
    balance_loss,
    dmil_loss,
    masked_negatives,
    mean_pairwise_cosine,
    mixture_loss,
    usage,
)
from hymirec_model.negatives import Negatives
from hymirec_model.shared_batch import processes, sum_of_all

if TYPE_CHECKING:
    from hymirec_model.training import Items


class Found(NamedTuple):
    """What the model finds for a batch."""

    coarse_BMd: Tensor
    interest_BKd: Tensor | None
    """None where the light recommender runs alone."""
    scale: Tensor
    """Factor on cosines, a scalar; here so that all that has a gradient is an output of one module."""

    def interests(self) -> list[Tensor]:
        """Return the interests that there are."""
        return [tensor for tensor in (self.coarse_BMd, self.interest_BKd) if tensor is not None]


class BatchReader(nn.Module):
    """A batch of item numbers → what the model finds, as one module so that DistributedDataParallel can wrap it."""

    def __init__(self, model: HyMiRec, code_table: CodeTable, items: Items) -> None:
        super().__init__()
        self.model, self.items = model, items
        self.code_table = code_table.requires_grad_(False)

    def forward(self, batch: Batch, *, light_only: bool) -> Found:
        """Return interests for a batch that is on the items' device."""
        model, items = self.model, self.items
        history_BNd = self.code_table(items.codes_IL[batch.items_BN], items.generation_I[batch.items_BN])
        coarse_BMd = model.light(history_BNd, batch.ages_BN, batch.mask_BN)
        interest_BKd = None if light_only else model.llm(coarse_BMd, history_BNd, batch.ages_BN, batch.mask_BN)
        return Found(coarse_BMd, interest_BKd, model.scale)


class TrainingStep:
    """Losses and gradients of batches.

    Parameters
    ----------
    reader : BatchReader
        On ``device``.
    config : RecommenderTrainingConfig
    device : torch.device
    """

    def __init__(self, reader: BatchReader, config: RecommenderTrainingConfig, device: torch.device) -> None:
        self.reader, self.config, self.device = reader, config, device
        self._dtype = training_dtype(config.precision, device)
        self._shared: DistributedDataParallel | None = None

    def share(self) -> None:
        """Let the processes that torchrun started average their gradients, of the parameters that now have any."""
        if processes()[1] > 1:
            self._shared = DistributedDataParallel(self.reader, find_unused_parameters=True)

    def backward(self, batch: Batch, negatives: Negatives, step: int, *, light_only: bool) -> dict[str, float]:
        """Add the gradient of a batch's loss to the parameters' ``grad``.

        In ``config.accumulation`` parts the gradient is that of the whole batch but for rounding, also of the terms
        that are no means over users: interests are found part by part without their graph, the loss of all of them
        gives each its gradient, and every part is read again with its graph (Gao et al. 2021, arXiv 2101.06983). So
        a backbone must not draw random numbers, such as dropout; memory for the scores (B, W, n) is not split.

        Parameters
        ----------
        batch : Batch
        negatives : Negatives
        step : int
            Seed of what the loss draws, on top of the training's.
        light_only : bool

        Returns
        -------
        dict
            Loss and figures to log, with the users, and the tokens that the LLM read, of all processes.
        """
        logged = {"users": float(sum_of_all(len(batch.items_BN), self.device))}
        if not light_only:
            logged["tokens"] = float(sum_of_all(self._tokens(batch), self.device))
        batch, negatives = batch.to(self.device), negatives.to(self.device)
        if self.config.accumulation == 1:
            loss, figures = self.loss(self._find(batch, light_only), batch, negatives, step)
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            # Also where a process has but one user: all must call the others in the same order.
            parts = _split(batch, self.config.accumulation)
            figures = self._in_parts(parts, batch, negatives, step, light_only)
        return {name: value.item() for name, value in figures.items()} | logged

    def loss(self, found: Found, batch: Batch, negatives: Negatives, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and what to log."""
        config, model, items, mask_BW = self.config, self.reader.model, self.reader.items, batch.target_mask_BW
        coarse_BMd, interest_BKd, scale = found
        target_BWd, negative_nd = items.vectors_Id[batch.targets_BW], items.vectors_Id[negatives.ids]
        false_BWn = masked_negatives(
            target_BWd, batch.targets_BW, negative_nd, negatives.ids, config.false_negative_cosine
        )
        if model.habits.strength > 0:  # which answers for what people take again
            items_BN, past_BN = batch.items_BN, batch.mask_BN
            again_BWN = (batch.targets_BW[..., None] == items_BN[:, None]) & past_BN[:, None]
            mask_BW = mask_BW & ~again_BWN.any(-1)
            false_BWn = false_BWn | among_own(items_BN, past_BN, negatives.ids)[:, None]
        known = (target_BWd, mask_BW, negative_nd, false_BWn, scale, negatives.bias)
        coarse_loss = mixture_loss(coarse_BMd, *known)
        if interest_BKd is None:
            share_M = usage(coarse_BMd, target_BWd, mask_BW, scale)
            return coarse_loss + config.balance_loss * balance_loss(share_M), {"loss": coarse_loss}
        if model.config.objective == "dmil":
            negatives_of = model.config.dmil_negatives
            loss = dmil_loss(interest_BKd, *known, seed=config.seed + step, negatives_of=negatives_of)
        else:
            loss = mixture_loss(interest_BKd, *known)
        share_K = usage(interest_BKd, target_BWd, mask_BW, scale)
        total = loss + config.coarse_loss * coarse_loss + config.balance_loss * balance_loss(share_K)
        return total, {
            "loss": loss,
            "coarse_loss": coarse_loss,
            "largest_interest_share": share_K.max(),
            "pairwise_interest_cosine": mean_pairwise_cosine(interest_BKd),
            "scale": scale,
        }

    def _find(self, batch: Batch, light_only: bool) -> Found:
        # Autocast ends with each pass: it would hand weights cast without a graph on to the pass with one. The loss
        # stays outside: in bfloat16 scores of tens would be told apart in steps of a quarter.
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            call = self._shared if self._shared is not None and torch.is_grad_enabled() else self.reader
            found: Found = call(batch, light_only=light_only)
        return found

    def _in_parts(
        self, parts: list[Batch], batch: Batch, negatives: Negatives, step: int, light_only: bool
    ) -> dict[str, Tensor]:
        with torch.no_grad():
            pieces = [self._find(part, light_only) for part in parts]
        whole = [
            torch.cat(same).requires_grad_() for same in zip(*(piece.interests() for piece in pieces), strict=True)
        ]
        scale = pieces[0].scale.detach().requires_grad_()
        loss, figures = self.loss(Found(whole[0], None if light_only else whole[1], scale), batch, negatives, step)
        loss.backward()  # type: ignore[no-untyped-call]
        sizes = [len(part.items_BN) for part in parts]
        gradients = list(zip(*(torch.split(_gradient(tensor), sizes) for tensor in whole), strict=True))
        for part, gradient in zip(parts, gradients, strict=True):
            last = part is parts[-1]
            alone = contextlib.nullcontext() if last or self._shared is None else self._shared.no_sync()
            with alone:
                found = self._find(part, light_only)
                if last:  # the scale is the same in all parts: its gradient goes in once
                    torch.autograd.backward([*found.interests(), found.scale], [*gradient, _gradient(scale)])
                else:
                    torch.autograd.backward(found.interests(), gradient)
        return figures

    def _tokens(self, batch: Batch) -> int:
        config = self.reader.model.config
        every = len(batch.items_BN) * (config.coarse_interests + config.interests)
        return every + int(batch.mask_BN[:, -config.recent :].sum())


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into ``parts`` of nearly equal numbers of users, or one a user where it has fewer."""
    users = torch.arange(len(batch.items_BN), device=batch.items_BN.device)
    names = [field.name for field in fields(batch)]
    return [
        replace(batch, **{name: getattr(batch, name)[rows] for name in names})
        for rows in users.tensor_split(min(parts, len(users)))
    ]
