"""Stage 2: train the light recommender and the LLM recommender when they are due.

Reads ``histories/ds`` without the held-out days, ``item_vectors/ds``, ``item_codes/ds``, the newest codebook and item
space, whose user side the light recommender starts from. Writes ``recommender/ds``. Due by age, and whenever the item
vectors changed their space. Under torchrun the processes share out each step's batch, and the model is that of one
process but for rounding; the first one writes.

The demo trains two layers of SmolLM2-135M for little more than a minute on two cores.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.platform import cli, columns, plots, tracking
from jobs.platform.datasets import dataset
from jobs.platform.errors import JobError
from jobs.platform.parts import keep
from jobs.platform.profile import Profile, load_profile
from jobs.platform.tracked_runs import StageRun
from jobs.platform.training import CHECKPOINTS, MODELS, Progress, facts_of, training_histories, version_of, why_due
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECTIONS = ("recommender", "recommender_training", "evaluation.mask_seen")
PHASES = {"light": "light recommender", "llm": "LLM"}


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
    retrain: cli.RetrainOption = None,
) -> None:
    """Train the recommender when it is due.

    Writes recommender.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    vectors = wh.partition("item_vectors", ds)
    newest = wh.latest("recommender", until=ds, strict=True)
    why = why_due(wh, newest, ds, settings, retrain, *SECTIONS)
    if newest is not None and newest.info["space_version"] != vectors.info["space_version"]:
        if (retrain or settings.retrain) == "never":
            raise JobError(
                f"retrain is never, but the recommender of {newest.ds} belongs to other item vectors; "
                "allowed: auto or always"
            )
        why = "the item vectors are new"
    first = int(os.environ.get("RANK", "0")) == 0
    if not why:
        assert newest is not None
        if first:
            with tracking.stage(
                "train_recommender", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)
            ) as run:
                run.tags({"hymirec.due": "no"})
                keep(wh, newest, ds)
            print(f"recommender: kept that of {newest.info['trained']} ({newest.info['model_version']}), not due")
        return
    with _process_group():
        if not first:
            train(wh, ds, settings, vectors, None)
            return
        refresh = cli.refresh_id_or_default(refresh_id, ds)
        with tracking.stage("train_recommender", ds=ds, refresh_id=refresh) as run:
            run.tags({"hymirec.due": why})
            run.params({"recommender": settings.recommender, "recommender_training": settings.recommender_training})
            written = train(wh, ds, settings, vectors, run)
            assert written is not None
    print(f"recommender: trained ({why}), version {written.info['model_version']}, {outcome(written.info)}")


def outcome(figures: Mapping[str, Any]) -> str:
    """What training changed on the windows that it did not see, in words."""
    if "validation_loss" not in figures:
        return "no history long enough to validate on"
    phases = []
    for phase, title in PHASES.items():
        if f"validation_recall_after_{phase}" in figures:
            before, after, kept = (figures[f"validation_recall_{when}_{phase}"] for when in ("before", "after", "kept"))
            if kept == before > after:
                note = " (undone)"
            elif kept > after:
                note = f" (kept {kept:.4f} of step {figures[f'validation_recall_kept_step_{phase}']:.0f})"
            else:
                note = ""
            phases.append(f"{title} {before:.4f} -> {after:.4f}{note}")
    found = f"validation loss {figures['validation_loss']:.4f}, recall@50 by training the {', the '.join(phases)}"
    if "validation_recall_with_habits" in figures:
        without, with_habits = (figures[f"validation_recall_{how}_habits"] for how in ("without", "with"))
        factors = f"strength {figures['habit_strength']:g}, satiety {figures['habit_satiety']:g}"
        found += f", without habits {without:.4f}, with them {with_habits:.4f} ({factors})"
    if figures.get("shift_strength"):
        without, with_shift = (figures[f"validation_recall_soon_{how}_shift"] for how in ("without", "with"))
        factors = f"{figures['shift_days']:g} days, strength {figures['shift_strength']:g}"
        found += f"; within a week {without:.4f}, with what is popular then {with_shift:.4f} ({factors})"
    return found


def train(wh: Warehouse, ds: str, profile: Profile, vectors: Partition, run: StageRun | None) -> Partition | None:
    """Train and, where there is a ``run`` to report to, write recommender/ds."""
    import torch

    from hymirec_model.checkpoints import Checkpoints
    from hymirec_model.codebook import ResidualCodebook
    from hymirec_model.devices import training_device
    from hymirec_model.hymirec import HyMiRec
    from hymirec_model.llm_recommender import load_backbone
    from hymirec_model.training import Items, train_recommender
    from hymirec_model.user_side import UserSide
    from hymirec_model.weights import resolve

    codes = wh.partition("item_codes", ds)
    codebook = wh.latest("codebook", until=ds) or wh.partition("codebook", ds)
    space = wh.latest("item_space", until=ds) or wh.partition("item_space", ds)
    histories = training_histories(wh, ds, profile)
    config, training = profile.recommender, profile.recommender_training
    item_vectors = columns.vectors(wh, vectors).astype(np.float32)
    items = Items(
        vectors_Id=torch.from_numpy(item_vectors),
        codes_IL=torch.from_numpy(columns.vectors(wh, codes, "codes").astype(np.uint8)),
        generation_I=torch.from_numpy(columns.column(wh, codes, "generation").astype(np.uint8)),
        counts_I=torch.from_numpy(np.bincount(histories.items, minlength=len(item_vectors))),
    )
    torch.manual_seed(training.seed)
    backbone = load_backbone(resolve(config.weights, MODELS), config.backbone_layers)
    model = HyMiRec(config, vectors.info["dim"], backbone)
    model.start_from(UserSide.load(wh.local_copy(space)))
    table = ResidualCodebook.load(wh.local_copy(codebook)).to_module()
    progress = Progress(run, "recommender", training.light_steps + training.steps) if run else None
    report = progress or _silent
    unfinished = f"{CHECKPOINTS}/recommender"
    checkpoints = Checkpoints(wh.storage, f"{unfinished}/ds={ds}", print if run else _silent)
    figures = train_recommender(
        *(model, table, items, histories, training, report, training_device(), checkpoints),
        mask_seen=profile.evaluation.mask_seen,
    )
    if run is None or progress is None:
        return None
    progress.close()
    run.metrics(figures)
    run.inputs([dataset(wh, part) for part in (wh.partition("histories", ds), vectors, codes)], "training")
    run.figure(picture(progress.losses, training.light_steps, figures), "loss_recommender.png")
    with wh.write_partition("recommender", ds) as part:
        model.cpu().save(part.local)
        part.info |= {
            "model_version": version_of(part.local),
            "space_version": vectors.info["space_version"],
            **figures,
            **facts_of(ds, profile, *SECTIONS),
        }
    wh.storage.remove(unfinished)  # of all days: one run works at a time
    return wh.partition("recommender", ds)


def picture(losses: Mapping[int, float], light_steps: int, figures: Mapping[str, float]) -> Figure:
    """Loss and validation of the two phases that a training has."""
    curves: dict[str, dict[int, float]] = {title: {} for title in PHASES.values()}
    light, llm = curves.values()
    for step, loss in losses.items():
        if step <= light_steps:
            light[step] = loss
        else:
            llm[step - light_steps] = loss
    recalls: dict[str, tuple[float, float]] = {}
    for phase, title in PHASES.items():
        if f"validation_recall_after_{phase}" in figures:
            before, after, kept = (figures[f"validation_recall_{when}_{phase}"] for when in ("before", "after", "kept"))
            recalls[title] = (before, kept if kept > before else after)
    # A run that goes on from a checkpoint has not seen the losses of the steps before.
    shown = {title: curve for title, curve in curves.items() if curve or title in recalls}
    return plots.loss_curves(shown, recalls)


def _silent(*_: object) -> None:
    """What the processes say that do not report."""


@contextlib.contextmanager
def _process_group() -> Iterator[None]:
    """The group of processes that torchrun started; nothing to do for a single one."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    import torch
    import torch.distributed as dist

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    cli.run(main)
