"""HyMiRec, its single-interest and matched forms, and HyMiRec without one of its parts, on a log.

Each has the same seconds of CPU time. Most start from the same stage 1 (item space and one interest, trained together),
which is trained once for a seed and counts in the time of each. What differs is stage 2.

By time they know when lists are asked for, at the cut: ages count from it, windows of long ago are drawn less often,
and items have the popularity shift that training chose. Leave last knows no such moment: a user's last events may come
weeks or years after those before them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.budget import TRIAL, StepTimes, share_spent, steps_within
from benchmarks.quality_data import Log
from hymirec_model.code_table import CodeTable
from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig, ItemSpaceConfig, RecommenderConfig, RecommenderTrainingConfig
from hymirec_model.encoder_training import train_item_space
from hymirec_model.habits import NONE, Habits, bonus_of
from hymirec_model.histories import Histories, Ints, window_batch
from hymirec_model.hymirec import HyMiRec
from hymirec_model.inference import calibration_sample, interest_weights
from hymirec_model.item_space import ItemSpace
from hymirec_model.llm_recommender import empty_backbone, load_backbone
from hymirec_model.merging import Merge
from hymirec_model.newcomers import lately_popular, popular_direction
from hymirec_model.popularity_shift import PopularityShift
from hymirec_model.retrieval import top_items
from hymirec_model.training import Items, train_recommender
from hymirec_model.user_side import UserSide
from hymirec_model.weights import resolve
from jobs.platform.local import state_folder

Floats = npt.NDArray[np.float32]
LIST, BATCH = 200, 256
STAGE_1 = 0.82  # of the time; at 90 s the codebook, choices on held windows and a few steps of stage 2 take the rest
LLM_ALONE = 0.3  # the same where everything stands on the LLM's output, which takes long to train
LIGHT = 0.4  # of stage 2's time
HALF_LIFE = 60.0  # days in which a window's chance to be drawn halves, by time
CPU = torch.device("cpu")
SPACE = ItemSpaceConfig(dim=128, batch_users=64, learning_rate=1e-3, recent=1.0)
BOOK = CodebookConfig(layers=8, fit_sample=20_000, iterations=8, refit_rounds=1)
MODEL = RecommenderConfig(history=200, backbone_layers=1)
ONE = replace(MODEL, interests=1, coarse_interests=1)
TRAINING = RecommenderTrainingConfig(learning_rate=3e-4, backbone_learning_rate=3e-5)


@dataclass(frozen=True, slots=True)
class Form:
    """What stage 2 is like; no ``model``: stage 1 alone."""

    model: RecommenderConfig | None
    window: int | None = None
    """Targets a user; the log's own by default."""
    codes: bool = True
    """Histories are read from codes; False: from full vectors."""
    stage_1: float = STAGE_1
    """Share of the time; 0: item vectors as the log and the texts give them."""
    pretrained: bool = True
    """The LLM recommender starts from a pretrained language model; False: from random weights of its form."""
    llm: bool = True
    """False: the light recommender has all of stage 2's time, and the LLM recommender is never trained."""
    timed: bool = True
    """False: windows of long ago are drawn as often as others, and there is no popularity shift, by time either."""


FORMS = {
    "HyMiRec": Form(MODEL),
    "one interest, window (control)": Form(ONE),
    "HyMiRec, full vectors instead of codes": Form(MODEL, codes=False),
    "HyMiRec without a long history (20 events)": Form(replace(MODEL, history=MODEL.recent)),
    "HyMiRec, random weights instead of the LLM's": Form(MODEL, pretrained=False),
    "HyMiRec without the LLM": Form(MODEL, llm=False),
}
"""Forms that share stage 1, so that another seed of each costs little."""
BY_TIME = {"HyMiRec without regard to time": Form(MODEL, timed=False)}
"""The same in the protocol by time alone; without a half-life stage 1 is another one."""
ONCE = {
    "one interest, next item (HLLM's form)": Form(replace(ONE, refine=False), window=1, stage_1=LLM_ALONE),
    "matched interests, max (the paper's form)": Form(
        replace(MODEL, interests=4, refine=False, objective="dmil", merge="max"), stage_1=LLM_ALONE
    ),
    "HyMiRec without stage 1's training": Form(MODEL, stage_1=0),
    "stage 1 alone": Form(None),
}
"""Forms that are trained with one seed."""


@dataclass(frozen=True, slots=True)
class Stage1:
    """An item space and the user side that was trained with it."""

    vectors: Floats
    user_side: UserSide
    seconds: float
    """CPU time that it took."""


class Trainer:
    """Trains forms with a seed; stage 1 once for all that share it.

    Parameters
    ----------
    log : Log
    window : int
        Targets a user.
    seconds : float
        CPU time of a form, all stages together.
    seed : int

    Attributes
    ----------
    spent : float
        CPU time that the form took which was trained last, trials left out.
    """

    def __init__(self, log: Log, window: int, seconds: float, seed: int) -> None:
        self.log, self.window, self.seconds, self.seed, self.spent = log, window, seconds, seed, 0.0
        self._stages: dict[tuple[float, float], Stage1] = {}

    def fit(self, form: Form) -> Callable[[Histories], Ints]:
        """Train a form; returns what ranks 200 items for given histories."""
        log, seed = self.log, self.seed
        now = log.cut if form.timed else None
        half_life = 0.0 if now is None else HALF_LIFE
        if form.model is None:
            first = self._shared(1.0, half_life)
            light, self.spent = first.user_side.light, first.seconds
            scale = float(first.user_side.log_scale.detach().exp())
            popular = lately_popular(log.train, log.items)
            light.newcomer.copy_(popular_direction(torch.from_numpy(first.vectors), popular))
            return _ranker(
                log, first.vectors, lambda batch: light(*batch), "lse", scale, NONE, None, None, MODEL.history
            )
        first = self._shared(form.stage_1, half_life)
        began = time.process_time() - first.seconds
        book = ResidualCodebook(replace(BOOK, seed=seed)).fit(first.vectors)
        generation, codes = book.encode_best(first.vectors)
        table = book.to_module() if form.codes else _FullVectors(first.vectors)
        items = Items(
            vectors_Id=torch.from_numpy(first.vectors),
            codes_IL=torch.from_numpy(codes.astype(np.uint8)) if form.codes else torch.arange(log.items)[:, None],
            generation_I=torch.from_numpy(generation.astype(np.uint8)),
            counts_I=_counts(log),
        )
        training = replace(TRAINING, window=form.window or self.window, half_life_days=half_life, seed=seed)
        left = self.seconds - (time.process_time() - began)
        model, seconds = _stage_2(form, training, table, items, log, first, left)
        self.spent = self.seconds - left + seconds

        def interests(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
            found: torch.Tensor = model(*batch)[1] if form.llm else model.light(*batch)
            return found

        decoded = table(items.codes_IL, items.generation_I).numpy()
        merge, scale, shift = form.model.merge, float(model.scale.detach()), None
        if now is not None:
            shift = PopularityShift(log.train, log.items).of_items(now, model.shift, merge, scale)
        return _ranker(log, first.vectors, interests, merge, scale, model.habits, shift, decoded, form.model.history)

    def _shared(self, share: float, half_life: float) -> Stage1:
        """Stage 1 in a share of the time, the same one for all that ask for it."""
        key = share, half_life
        if key not in self._stages:
            self._stages[key] = _stage_1(self.log, self.window, share * self.seconds, half_life, self.seed)
        return self._stages[key]


def _counts(log: Log) -> torch.Tensor:
    return torch.from_numpy(np.bincount(log.train.items, minlength=log.items))


def _start(log: Log, config: ItemSpaceConfig) -> tuple[ItemSpace, UserSide]:
    """Item space and user side as the log and the texts give them."""
    torch.manual_seed(config.seed)
    space, side = ItemSpace(config, log.states_Ih.shape[1], log.items), UserSide(config.dim, recency=config.recency)
    space.initialise(log.states_Ih, np.arange(log.items), log.train)
    return space, side


def _stage_1(log: Log, window: int, seconds: float, half_life: float, seed: int) -> Stage1:
    began, rows = time.process_time(), np.arange(log.items)
    config = replace(SPACE, window=window, half_life_days=half_life, seed=seed)
    space, side = _start(log, config)
    train_item_space(
        space, side, log.states_Ih, rows, log.train, config, lambda *_: None, progress=share_spent(began, seconds)
    )
    return Stage1(space.vectors(log.states_Ih, rows), side.eval(), time.process_time() - began)


def _stage_2(
    form: Form,
    training: RecommenderTrainingConfig,
    table: CodeTable | _FullVectors,
    items: Items,
    log: Log,
    first: Stage1,
    seconds: float,
) -> tuple[HyMiRec, float]:
    """Stage 2's model, and the CPU time that it took."""
    config = form.model
    assert config is not None
    source = resolve(config.weights, state_folder() / "models")

    def trained(light_steps: int, steps: int) -> tuple[HyMiRec, StepTimes]:
        times = StepTimes()
        torch.manual_seed(training.seed)
        backbone = load_backbone(source, config.backbone_layers)
        if not form.pretrained:
            backbone = empty_backbone(backbone.config.to_dict())
        model = HyMiRec(config, first.vectors.shape[1], backbone)
        model.start_from(first.user_side)
        chosen = replace(training, light_steps=light_steps, steps=steps)
        train_recommender(model, table, items, log.train, chosen, times, CPU, mask_seen=log.mask_seen)  # type: ignore[arg-type]
        return model.eval(), times

    _, trial = trained(TRIAL, TRIAL if form.llm else 0)
    left = seconds - trial.all_else(phases=2 if form.llm else 1)
    light_steps, steps = steps_within(left, trial.a_step()), 0
    if form.llm:
        light_steps = steps_within(LIGHT * left, trial.a_step())
        steps = steps_within((1 - LIGHT) * left, trial.a_step(phase=1))
    model, times = trained(light_steps, steps)
    return model, times.passed()


class _FullVectors(torch.nn.Module):
    """Stands where the codebook's decoder does: an item's code is its number."""

    def __init__(self, vectors: Floats) -> None:
        super().__init__()
        self.vectors: torch.Tensor
        self.register_buffer("vectors", torch.from_numpy(vectors))

    def forward(self, codes: torch.Tensor, generation: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.vectors[codes[..., 0]]
        return found


def _ranker(
    log: Log,
    vectors: Floats,
    interests_of: Callable[[tuple[torch.Tensor, ...]], torch.Tensor],
    merge: Merge,
    scale: float,
    habits: Habits,
    shift: Floats | None,
    decoded: Floats | None,
    history: int,
) -> Callable[[Histories], Ints]:
    read = torch.from_numpy(vectors if decoded is None else decoded)
    sample = vectors[calibration_sample(log.items)]
    shift_I = None if shift is None else torch.from_numpy(shift)

    def rank(past: Histories) -> Ints:
        found = []
        for start in range(0, len(past), BATCH):
            users = np.arange(start, min(start + BATCH, len(past)))
            ends = past.offsets[users + 1]
            # Without a cut ages count from the newest event: when the next one comes is not known.
            now = past.timestamps[ends - 1] if log.cut is None else np.full(len(users), log.cut)
            batch = window_batch(past, users, ends, now, history, 0)
            with torch.inference_mode():
                found.append(interests_of((read[batch.items_BN], batch.ages_BN, batch.mask_BN)).numpy())
        interests = np.concatenate(found)
        weights = interest_weights(interests, merge, scale, sample)
        seen = (past.offsets, past.items) if log.mask_seen else None
        users_UKd, weights_UK, items_Id = (torch.from_numpy(array) for array in (interests, weights, vectors))
        bonus = bonus_of(past, habits, merge, scale)
        found_UN, _ = top_items(
            users_UKd, weights_UK, items_Id, LIST, merge, scale, exclude=seen, bonus=bonus, shift=shift_I
        )
        return np.asarray(found_UN)

    return rank
