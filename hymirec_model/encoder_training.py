"""Stage 1: the item space and the content encoder are trained on a recommendation loss.

One user vector, read by a light recommender from the newest events, must find the events of the next window among
shared negatives (InfoNCE): sampled ones and, where asked for, the other users' targets. One interest is enough here:
an item space bent to several interests was worse for all of them later.

Shapes: B users, N history positions, W targets, n negatives, d item dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hymirec_model.backbone_tuning import tuned_backbone
from hymirec_model.config import EncoderTrainingConfig, ItemSpaceConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.devices import repeatable_on_cpu, training_dtype
from hymirec_model.histories import Batch, Histories
from hymirec_model.item_space import Floats, Halves, ItemSpace
from hymirec_model.negatives import NegativeSampler
from hymirec_model.user_side import UserSide
from hymirec_model.window_sampler import WindowSampler, without_held_windows

Ints = npt.NDArray[np.int64]
Report = Callable[[int, dict[str, float]], object]
"""Called with the number of steps done and the metrics of the last one."""
CPU = torch.device("cpu")


def distinct_items(batch: Batch, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct items of history, targets and negatives, and the place of each occurrence among them."""
    everything = torch.cat([batch.items_BN.flatten(), batch.targets_BW.flatten(), negatives])
    items, places = torch.unique(everything, return_inverse=True)
    return items, places


def cosine_rate(step: float, steps: int, warmup: int) -> float:
    """Factor on the learning rate: a linear rise, then half a cosine down to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@repeatable_on_cpu
def train_item_space(
    space: ItemSpace,
    user_side: UserSide,
    states: Floats,
    state_of_item: Ints,
    histories: Histories,
    config: ItemSpaceConfig,
    report: Report,
    device: torch.device = CPU,
    images: Halves | None = None,
    progress: Iterable[float] | None = None,
) -> None:
    """Train heads, residuals and user side on stored text states, in place; they end up on ``device``.

    Parameters
    ----------
    space : ItemSpace
    user_side : UserSide
    states : float array of shape (texts, h)
    state_of_item : int array of shape (I,)
    histories : Histories
        Only what training may see.
    config : ItemSpaceConfig
    report : callable
    images : float16 array of shape (I, g), optional
        Unit image vectors, zero where an item has none.
    progress : iterable of float, optional
        Share of the training, from 0 to 1, that is done before each step; default: ``config.steps`` equal ones.
    """
    sampler = WindowSampler(
        histories,
        batch_users=config.batch_users,
        history=config.history,
        window=config.window,
        seed=config.seed,
        held=config.validation_users,
        recent=config.recent,
        half_life_days=config.half_life_days,
    )
    counts = np.bincount(histories.items, minlength=len(state_of_item))
    negatives_of = NegativeSampler(counts, config.seed)
    space, user_side = space.to(device), user_side.to(device)
    dense = [*space.heads(), *user_side.parameters()]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(dense, lr=config.learning_rate, weight_decay=0.01)]
    if config.residual:
        optimizers.append(torch.optim.SparseAdam([space.residual.weight], lr=config.learning_rate))
    batches = iter(sampler)
    if progress is None:
        progress = (step / config.steps for step in range(config.steps))
    for step, done in enumerate(progress):
        rate = cosine_rate(done * config.steps, config.steps, 1 + config.steps // 20)
        for optimizer in optimizers:
            _set_rate(optimizer, [config.learning_rate], rate)
            optimizer.zero_grad()
        batch, negatives = next(batches), negatives_of.draw(config.negatives)
        items, places = distinct_items(batch, negatives.ids)
        states_of_items = torch.from_numpy(states[state_of_item[items.numpy()]]).to(device)
        pictures = None if images is None else torch.from_numpy(images[items.numpy()]).to(device).float()
        vectors = space(states_of_items, items.to(device), pictures)
        batch, negatives, places = batch.to(device), negatives.to(device), places.to(device)
        loss = user_side.loss(batch, vectors, places, negatives)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(dense, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        report(step + 1, {"loss": loss.item(), "gradient_norm": float(norm)})


@repeatable_on_cpu
def tune_encoder(
    encoder: ContentEncoder,
    texts: list[str],
    histories: Histories,
    space_config: ItemSpaceConfig,
    config: EncoderTrainingConfig,
    report: Report,
    progress: Callable[[int], object] | None = None,
    device: torch.device = CPU,
) -> None:
    """Tune the content encoder end to end, in place and on ``device``, on the items with the most events.

    Parameters
    ----------
    encoder : ContentEncoder
    texts : list of str
        Text of every item. Images play no part here: the text has to stand for items that have none.
    histories : Histories
        Only what training may see.
    space_config : ItemSpaceConfig
        For the head that the tuning stands on; it has no residuals, so that the text has to explain everything.
    config : EncoderTrainingConfig
    report : callable
        For the head's steps (negative numbers, up to -1) and the end-to-end steps (from 1).
    progress : callable, optional
        Called with the number of texts embedded, before the first step.
    """
    # Once for head and backbone, and of whole histories, in which stage 2 finds these windows.
    histories = without_held_windows(histories, space_config.window, space_config.validation_users)
    counts = np.bincount(histories.items, minlength=len(texts))
    pool = np.sort(np.argsort(-counts, kind="stable")[: min(config.pool_items, int((counts > 0).sum()))])
    histories = histories.only_items(np.isin(np.arange(len(texts)), pool))
    state_of_item = np.zeros(len(texts), np.int64)
    state_of_item[pool] = np.arange(len(pool))
    states = encoder.to(device).eval().embed([texts[item] for item in pool], progress)
    head_config = replace(
        space_config,
        residual=False,
        steps=config.head_steps,
        negatives=len(pool),
        history=config.history,
        validation_users=0,
    )
    torch.manual_seed(config.seed)
    space = ItemSpace(head_config, encoder.hidden, len(texts))
    user_side = UserSide(space_config.dim, recency=space_config.recency)
    space.initialise(states, state_of_item, histories)

    def report_head(step: int, metrics: dict[str, float]) -> None:
        report(step - config.head_steps - 1, metrics)

    train_item_space(space, user_side, states, state_of_item, histories, head_config, report_head, device)
    with tuned_backbone(encoder, lora_rank=config.lora_rank, checkpointing=config.gradient_checkpointing):
        _tune_end_to_end(encoder, space, user_side, texts, pool, histories, config, head_config.half_life_days, report)


def _tune_end_to_end(
    encoder: ContentEncoder,
    space: ItemSpace,
    user_side: UserSide,
    texts: list[str],
    pool: Ints,
    histories: Histories,
    config: EncoderTrainingConfig,
    half_life_days: float,
    report: Report,
) -> None:
    sampler = WindowSampler(
        histories,
        batch_users=config.batch_users,
        history=config.history,
        window=config.window,
        seed=config.seed + 1,
        half_life_days=half_life_days,
    )
    counts = np.bincount(histories.items, minlength=len(texts))
    negatives_of, device = NegativeSampler(counts, config.seed + 1), encoder.item_token.device
    dtype, others = training_dtype(config.precision, device), None
    if config.in_batch_negatives:
        others = (config.batch_users - 1) * sampler.expected_targets(len(texts))
    tokens = dict(zip(pool.tolist(), encoder.tokenize([texts[item] for item in pool]), strict=True))
    parts = [*space.head.parameters(), *user_side.parameters(), encoder.item_token]
    rates = [config.learning_rate, config.backbone_learning_rate]
    backbone = [p for p in encoder.backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([{"params": parts}, {"params": backbone}], weight_decay=0.01)
    batches = iter(sampler)
    encoder.train()
    for step in range(config.steps):
        _set_rate(optimizer, rates, cosine_rate(step, config.steps, 1 + config.steps // 10))
        optimizer.zero_grad()
        batch = _without_padding(next(batches), int(pool[0]))
        if others is None:
            negatives = negatives_of.draw(config.negatives)
        else:
            negatives = negatives_of.draw_beside(batch, others, config.negatives)
        items, places = distinct_items(batch, negatives.ids)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            states = encoder([tokens[int(item)] for item in items])
        vectors = space.from_text(states.float())
        loss = user_side.loss(batch.to(device), vectors, places.to(device), negatives.to(device))
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_([*parts, *backbone], 1.0)
        optimizer.step()
        report(step + 1, {"loss": loss.item(), "gradient_norm": float(norm)})
    encoder.eval()


def _without_padding(batch: Batch, filler: int) -> Batch:
    """Put an item that has a text where the padding's item 0 stands; the masks still hide it."""
    return replace(
        batch,
        items_BN=torch.where(batch.mask_BN, batch.items_BN, filler),
        targets_BW=torch.where(batch.target_mask_BW, batch.targets_BW, filler),
    )


def _set_rate(optimizer: torch.optim.Optimizer, rates: list[float], factor: float) -> None:
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate * factor
