"""Stage 2: the light recommender and the LLM recommender are trained on frozen item vectors.

First the light recommender alone, in cheap steps, then both together with the same loss on the coarse interests as a
side task. What a phase makes worse on held windows is undone: the loss may fall while retrieval gets worse. Histories
are read as codes and decoded on the device; targets and negatives are the items' full vectors.

Shapes: B users, N history positions, W targets, n negatives, K interests, M coarse interests, d item dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hymirec_model.code_table import CodeTable
from hymirec_model.config import RecommenderTrainingConfig
from hymirec_model.devices import repeatable_on_cpu, training_dtype
from hymirec_model.encoder_training import Report, cosine_rate
from hymirec_model.histories import Batch, Histories
from hymirec_model.hymirec import HyMiRec
from hymirec_model.losses import (
    balance_loss,
    dmil_loss,
    masked_negatives,
    mean_pairwise_cosine,
    mixture_loss,
    usage,
)
from hymirec_model.negatives import Negatives, NegativeSampler
from hymirec_model.shared_batch import processes
from hymirec_model.validation import Validation
from hymirec_model.window_sampler import WindowSampler

VALIDATION_NEGATIVES = 2048
SCALE_PACE = 5  # the scale's learning rate over the others': it has a long way to go in few steps
SPREAD_ITEMS = 2000  # most bought items, whose regions the coarse interests start on


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """All items, by item number."""

    vectors_Id: Tensor
    """Unit vectors, float32."""
    codes_IL: Tensor
    """Codes, long."""
    generation_I: Tensor
    """Generation of the codebook that the codes belong to, long."""
    counts_I: Tensor
    """Events of each item in what training may see, long; negatives are drawn from those that have any."""

    def to(self, device: torch.device) -> Items:
        """Return the tables on ``device``."""
        return Items(**{name: getattr(self, name).to(device) for name in self.__slots__})


class TrainingStep(nn.Module):
    """Everything between a batch and its loss, as one module so that DistributedDataParallel can wrap it."""

    def __init__(self, model: HyMiRec, code_table: CodeTable, config: RecommenderTrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.code_table = code_table.requires_grad_(False)

    def forward(
        self, batch: Batch, items: Items, negatives: Negatives, step: int, *, light_only: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and what to log."""
        model = self.model
        history_BNd = self.code_table(items.codes_IL[batch.items_BN], items.generation_I[batch.items_BN])
        coarse_BMd = model.light(history_BNd, batch.ages_BN, batch.mask_BN)
        interest_BKd = None if light_only else model.llm(coarse_BMd, history_BNd, batch.ages_BN, batch.mask_BN)
        # In bfloat16 scores of tens would be told apart in steps of a quarter.
        with torch.autocast(coarse_BMd.device.type, enabled=False):
            return self._loss(coarse_BMd, interest_BKd, batch, items, negatives, step)

    def _loss(
        self,
        coarse_BMd: Tensor,
        interest_BKd: Tensor | None,
        batch: Batch,
        items: Items,
        negatives: Negatives,
        step: int,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        config, scale, mask_BW = self.config, self.model.scale, batch.target_mask_BW
        target_BWd, negative_nd = items.vectors_Id[batch.targets_BW], items.vectors_Id[negatives.ids]
        false_BWn = masked_negatives(
            target_BWd, batch.targets_BW, negative_nd, negatives.ids, config.false_negative_cosine
        )
        known = (target_BWd, mask_BW, negative_nd, false_BWn, scale, negatives.bias)
        coarse_loss = mixture_loss(coarse_BMd, *known)
        if interest_BKd is None:
            share_M = usage(coarse_BMd, target_BWd, mask_BW, scale)
            return coarse_loss + config.balance_loss * balance_loss(share_M), {"loss": coarse_loss}
        if self.model.config.objective == "dmil":
            loss = dmil_loss(interest_BKd, *known, seed=config.seed + step)
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


@repeatable_on_cpu
def train_recommender(
    model: HyMiRec,
    code_table: CodeTable,
    items: Items,
    histories: Histories,
    config: RecommenderTrainingConfig,
    report: Report,
    device: torch.device,
) -> dict[str, float]:
    """Train ``model`` in place.

    Under torchrun each step's batch is shared out among the processes. Loss and gradient are those of the whole batch,
    so the number of processes changes the model by no more than rounding.

    Parameters
    ----------
    model : HyMiRec
    code_table : CodeTable
        The codebook's decoder.
    items : Items
    histories : Histories
        Only what training may see.
    config : RecommenderTrainingConfig
    report : callable
    device : torch.device

    Returns
    -------
    dict
        On the last windows of up to ``config.validation_users`` users, which training does not see: recall@50 before
        and after each phase, and losses of the coarse interests and of the interests at the end. A phase that lowers
        the recall is undone.
    """
    rank, world = processes()
    sampler = WindowSampler(
        histories,
        batch_users=config.batch_users,
        history=model.config.history,
        window=config.window,
        seed=config.seed,
        held=config.validation_users,
        recent=config.recent,
        shares=world,
        share=rank,
    )
    counts = items.counts_I.numpy()
    negatives_of = NegativeSampler(counts, config.seed)
    best_known = np.argsort(-counts, kind="stable")[: min(SPREAD_ITEMS, int((counts > 0).sum()))]
    model.light.spread(items.vectors_Id[torch.from_numpy(best_known)], config.seed)
    step_module = TrainingStep(model, code_table, config).to(device)
    items = items.to(device)
    bf16 = training_dtype(config.precision, device) == torch.bfloat16
    batches = iter(sampler)

    fixed = NegativeSampler(counts, config.seed).draw(VALIDATION_NEGATIVES).to(device)
    validation = Validation(step_module, sampler.held_windows(), items, fixed, device)
    figures: dict[str, float] = {}
    done = 0
    for light_only, steps in ((True, config.light_steps), (False, config.steps)):
        if not steps:
            continue
        before = validation.recall(light_only=light_only)
        start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        groups = _parameter_groups(model, config, light_only)
        optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        trained = [p for group in groups for p in group["params"]]
        call: Callable[..., tuple[Tensor, dict[str, Tensor]]] = step_module
        if world > 1:
            call = DistributedDataParallel(step_module, find_unused_parameters=True)
        model.train()
        for step in range(steps):
            factor = cosine_rate(step, steps, 1 + int(config.warmup * steps))
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss, logged = call(
                    next(batches).to(device),
                    items,
                    negatives_of.draw(config.negatives).to(device),
                    done,
                    light_only=light_only,
                )
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            done += 1
            report(done, {name: value.item() for name, value in logged.items()} | {"gradient_norm": float(norm)})
        after = validation.recall(light_only=light_only)
        if before is not None and after is not None:
            if _agreed(after < before, device):
                model.load_state_dict(start)
            phase = "light" if light_only else "llm"
            figures |= {f"validation_recall_before_{phase}": before, f"validation_recall_after_{phase}": after}
    model.eval()
    return figures | validation.losses()


def _agreed(decision: bool, device: torch.device) -> bool:
    """The first process's decision, for all."""
    if not dist.is_initialized():
        return decision
    shared = torch.tensor([decision], dtype=torch.uint8, device=device)
    dist.broadcast(shared, 0)
    return bool(shared.item())


def _parameter_groups(model: HyMiRec, config: RecommenderTrainingConfig, light_only: bool) -> list[dict[str, Any]]:
    """Parameters by learning rate; what a phase does not train is left out."""
    pretrained = {id(p) for p in model.llm.backbone.parameters()}
    scratch = [p for p in model.parameters() if id(p) not in pretrained]
    if light_only:
        scratch = [*model.light.parameters()]
    scratch = [p for p in scratch if p is not model.log_scale]
    groups: list[dict[str, Any]] = [
        {"params": scratch, "base": config.learning_rate},
        {"params": [model.log_scale], "base": SCALE_PACE * config.learning_rate},
    ]
    if not light_only:
        tuned = [p for p in model.llm.backbone.parameters() if p.requires_grad]
        groups.append({"params": tuned, "base": config.backbone_learning_rate})
    return groups
