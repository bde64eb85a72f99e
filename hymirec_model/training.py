"""Stage 2: the light recommender and the LLM recommender are trained on frozen item vectors.

First the light recommender alone, in cheap steps, then both together with the same loss on the coarse interests as a
side task. Of each phase the weights that were best on held windows are kept, if need be those before it: the loss may
fall while retrieval gets worse. How much habits count (habits.py) is chosen at each of these measurements, and what
they answer for interests need not learn. Histories are read as codes and decoded on the device; targets and negatives
are the items' full vectors.

Shapes: I items, L codes an item, d item dimensions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hymirec_model.checkpoints import Checkpoint, Checkpoints, fingerprint
from hymirec_model.code_table import CodeTable
from hymirec_model.config import RecommenderTrainingConfig
from hymirec_model.devices import repeatable_on_cpu
from hymirec_model.encoder_training import Report
from hymirec_model.errors import require
from hymirec_model.habits import NONE, Habits
from hymirec_model.histories import Histories
from hymirec_model.hymirec import HyMiRec
from hymirec_model.negatives import NegativeSampler
from hymirec_model.newcomers import lately_popular, popular_direction
from hymirec_model.popularity_shift import NO_SHIFT, SHIFTS, PopularityShift, Shift
from hymirec_model.shared_batch import of_the_first, processes
from hymirec_model.training_phase import Phase
from hymirec_model.training_step import BatchReader, Found, TrainingStep
from hymirec_model.validation import Validation
from hymirec_model.window_sampler import WindowSampler

VALIDATION_NEGATIVES = 2048
HABITS = [Habits(strength, satiety) for strength in (0.0, 1.0, 2.0, 4.0, 8.0) for satiety in (0.0, 1.0, 4.0)]
CLEARLY = 3.0  # standard errors of a shift's mean gain: the best of many gains something by chance alone
BREADTHS = (0.1, 0.25, 0.5)  # see LightRecommender.set_breadth; at 0 all interests would be one


@dataclass(frozen=True, kw_only=True, slots=True)
class Items:
    """All items, by item number."""

    vectors_Id: Tensor
    """Unit vectors, float32."""
    codes_IL: Tensor
    """Codes, uint8."""
    generation_I: Tensor
    """Generation of the codebook that the codes belong to, uint8."""
    counts_I: Tensor
    """Events of each item in what training may see, long; negatives are drawn from those that have any."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tables by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def to(self, device: torch.device) -> Items:
        """Return the tables on ``device``."""
        return Items(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


@repeatable_on_cpu
def train_recommender(
    model: HyMiRec,
    code_table: CodeTable,
    items: Items,
    histories: Histories,
    config: RecommenderTrainingConfig,
    report: Report,
    device: torch.device,
    checkpoints: Checkpoints | None = None,
    *,
    mask_seen: bool,
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
        Steps are counted over both phases; where the first ends early, the second still begins after all its steps.
    device : torch.device
    checkpoints : Checkpoints, optional
        Where a checkpoint is left every ``config.checkpoint_steps`` steps, by the first process, and where one of the
        same training is taken up, by all. On the CPU what comes after it is equal to the bit to an undisturbed run.
        The model must be given as it was at the start.
    mask_seen : bool
        Validate as lists are made where nobody gets what they had.

    Returns
    -------
    dict
        On the last windows of up to ``config.validation_users`` users, which training does not see: recall@50 before
        and after each phase and as kept, then habits as they were chosen and recall@50 without and with them; the shift
        as it was chosen and recall@50 of the next week's targets without and with it; and
        losses of the coarse interests and of the interests at the end.

    Raises
    ------
    InputError
        If the processes do not find the same checkpoint.
    """
    rank, world = processes()
    training = _identity(model, code_table, items, histories, config, device, mask_seen) if checkpoints else {}
    sampler = WindowSampler(
        histories,
        batch_users=config.batch_users,
        history=model.config.history,
        window=config.window,
        seed=config.seed,
        held=config.validation_users,
        recent=config.recent,
        half_life_days=config.half_life_days,
        shares=world,
        share=rank,
    )
    counts = items.counts_I.numpy()
    negatives_of = NegativeSampler(counts, config.seed)
    reader = BatchReader(model, code_table, items.to(device)).to(device)
    step = TrainingStep(reader, config, device)
    fixed = NegativeSampler(counts, config.seed).draw(VALIDATION_NEGATIVES).to(device)
    windows, pasts = sampler.held_windows(), sampler.held_pasts()
    validation = Validation(step, windows, pasts, fixed, device, mask_seen=mask_seen)
    streams = {"windows": sampler.random, "negatives": negatives_of.random}
    batches = iter(sampler)

    found = checkpoints.read(training) if checkpoints else None
    _require_the_same(found, device)
    figures: dict[str, float] = dict(found.facts["figures"]) if found else {}
    light = Phase("light", 0, config.light_steps, model, config)
    whole = Phase("llm", config.light_steps, config.steps, model, config)
    if not light.steps and not whole.steps:
        _choose_breadth(model, partial(_measure, model, validation, device, light_only=True))
    for phase in (light, whole):
        if not phase.steps or (found and found.facts["phase"] != phase.name):
            continue
        measure = partial(_measure, model, validation, device, light_only=phase.light_only)
        if found:
            _restore(found, phase, streams, device)
            model.set_habits(Habits(**found.facts["habits"]))
            found = None
        else:
            before = None
            if phase is light or not light.steps:
                before = _choose_breadth(model, partial(_measure, model, validation, device, light_only=True))
            phase.begin(before if phase is light else measure())
        step.share()
        model.train()
        while not phase.over:
            phase.zero_grad()
            done = phase.first + phase.done
            batch, negatives = next(batches), negatives_of.draw(config.negatives)
            logged = step.backward(batch, negatives, done, light_only=phase.light_only)
            logged["gradient_norm"] = phase.step()
            if phase.measures and (recall := measure()) is not None:
                phase.judge(recall)
                logged["validation_recall"] = recall
            done += 1
            report(done, logged)
            if checkpoints and rank == 0 and config.checkpoint_steps and done % config.checkpoint_steps == 0:
                checkpoints.write(training, _checkpoint(phase, figures, model.habits, streams, device))
        figures |= phase.end()
    popular_I = lately_popular(histories, len(counts)).to(device)
    model.light.newcomer.copy_(popular_direction(reader.items.vectors_Id, popular_I))
    read = validation.read(light_only=False)
    figures |= _habits(model, validation, read, device)
    figures |= _choose_shift(model, validation, read, PopularityShift(histories, len(counts)), sampler, device)
    model.eval()
    return figures | validation.losses(read)


def _identity(
    model: HyMiRec,
    code_table: CodeTable,
    items: Items,
    histories: Histories,
    config: RecommenderTrainingConfig,
    device: torch.device,
    mask_seen: bool,
) -> dict[str, str]:
    """Fingerprints of all that decides what the training comes to, but for rounding."""
    settings = [dataclasses.asdict(dataclasses.replace(config, checkpoint_steps=0)), dataclasses.asdict(model.config)]
    return {
        "settings": fingerprint([*settings, device.type, mask_seen]),
        "initial weights": fingerprint(tensors=model.state_dict()),
        "codebook": fingerprint(tensors=code_table.state_dict()),
        "items": fingerprint(tensors=items.tensors()),
        "histories": fingerprint(arrays=(histories.offsets, histories.items, histories.timestamps)),
    }


def _measure(model: HyMiRec, validation: Validation, device: torch.device, *, light_only: bool) -> float | None:
    """Let habits count as much as finds most on the held windows, and return the recall there."""
    found = _try_habits(model, validation, validation.read(light_only=light_only), device)
    return of_the_first(found[model.habits], device) if found else None


def _try_habits(model: HyMiRec, validation: Validation, read: list[Found], device: torch.device) -> dict[Habits, float]:
    """Let habits count as much as finds most on the held windows, and return the recall with each."""
    found = validation.recalls(read, [NONE] if validation.mask_seen else HABITS)
    if found:
        best = max(found, key=found.__getitem__)
        model.set_habits(Habits(*(of_the_first(factor, device) for factor in best)))
    return found


def _choose_breadth(model: HyMiRec, recall: Callable[[], float | None]) -> float | None:
    """Let the coarse interests start as far apart as finds most on the held windows, half-way where there are none.

    Habits are those that go with it; returns the recall.

    Where people's tastes are broad (gifts, toys), half of each interest from its own group finds most, and more finds
    less; where they are narrow (films), a tenth finds no less than one interest, and a quarter does.
    """
    if model.config.coarse_interests == 1:
        return recall()
    found: dict[float, tuple[float, Habits]] = {}
    for share in BREADTHS:
        model.light.set_breadth(share)
        if (measured := recall()) is not None:
            found[share] = measured, model.habits
    if not found:
        model.light.set_breadth(0.5)
        return None
    best = max(found, key=lambda share: found[share][0])
    model.light.set_breadth(best)
    model.set_habits(found[best][1])
    return found[best][0]


def _habits(model: HyMiRec, validation: Validation, read: list[Found], device: torch.device) -> dict[str, float]:
    """How much habits count in the end, and what they bring where lists may hold what a user had."""
    found = _try_habits(model, validation, read, device)
    figures = {f"habit_{name}": factor for name, factor in model.habits._asdict().items()}
    if found and not validation.mask_seen:
        figures["validation_recall_without_habits"] = found[NONE]
        figures["validation_recall_with_habits"] = found[model.habits]
    return figures


def _choose_shift(
    model: HyMiRec,
    validation: Validation,
    read: list[Found],
    log: PopularityShift,
    sampler: WindowSampler,
    device: torch.device,
) -> dict[str, float]:
    """Let what is popular count as much as finds clearly most of what the held windows have within a week."""
    found = validation.shift_recalls(read, log, sampler, SHIFTS)
    if not found:
        return {}
    best = max(found, key=lambda shift: found[shift].mean())
    gain_V = found[best] - found[NO_SHIFT]
    if gain_V.mean() <= CLEARLY * gain_V.std() / len(gain_V) ** 0.5:
        best = NO_SHIFT
    model.set_shift(Shift(*(of_the_first(factor, device) for factor in best)))
    figures = {f"shift_{name}": factor for name, factor in model.shift._asdict().items()}
    without, with_it = (float(found.get(shift, found[NO_SHIFT]).mean()) for shift in (NO_SHIFT, model.shift))
    return figures | {"validation_recall_soon_without_shift": without, "validation_recall_soon_with_shift": with_it}


def _require_the_same(found: Checkpoint | None, device: torch.device) -> None:
    step = found.step if found else 0
    first = int(of_the_first(step, device))
    require(
        step == first,
        f"checkpoints: this process found step {step}, the first one step {first}; allowed: the same; let all "
        "processes see one folder, or remove it",
    )


def _checkpoint(
    phase: Phase,
    figures: dict[str, float],
    habits: Habits,
    streams: dict[str, np.random.Generator],
    device: torch.device,
) -> Checkpoint:
    """Where a training stands. Batches are drawn as they are needed, so their generator's state is the position."""
    place, tensors = phase.state()
    tensors["random/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["random/cuda"] = torch.cuda.get_rng_state(device)
    facts: dict[str, Any] = {
        "phase": phase.name,
        "place": place,
        "figures": figures,
        "habits": habits._asdict(),
        "random": {name: generator.bit_generator.state for name, generator in streams.items()},
    }
    return Checkpoint(step=phase.first + phase.done, facts=facts, tensors=tensors)


def _restore(found: Checkpoint, phase: Phase, streams: dict[str, np.random.Generator], device: torch.device) -> None:
    phase.restore(found.facts["place"], found.tensors)
    for name, generator in streams.items():
        generator.bit_generator.state = found.facts["random"][name]
    torch.set_rng_state(found.tensors["random/cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(found.tensors["random/cuda"], device)
