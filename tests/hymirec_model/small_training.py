"""The recommender in training, small, on the planted log.

Under torchrun, ``python -m torch.distributed.run … -m tests.hymirec_model.small_training FOLDER`` runs all of `RUNS`
in each process, and leaves a file a run and process in FOLDER.
"""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from hymirec_model.checkpoints import Checkpoints
from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig, RecommenderConfig, RecommenderTrainingConfig
from hymirec_model.encoder_training import Report
from hymirec_model.histories import Histories
from hymirec_model.hymirec import HyMiRec
from hymirec_model.training import Items, train_recommender
from jobs.platform.storage import Storage
from tests.hymirec_model import planted

ITEMS, D = 90, 12
CONFIG = RecommenderTrainingConfig(
    light_steps=25,
    steps=25,
    batch_users=16,
    window=4,
    negatives=64,
    learning_rate=3e-3,
    backbone_learning_rate=1e-3,
    validation_users=40,
)
VECTORS = planted.vectors(ITEMS, D)
BOOK = ResidualCodebook(CodebookConfig(layers=2, size=16, iterations=2)).fit(VECTORS)
LOG = planted.log(60, ITEMS)
Objective = Literal["mixture", "dmil"]
Curve = list[tuple[int, dict[str, float]]]

# An odd batch, which two processes cannot halve, and windows that end with the history: few or many targets a user.
SHARED = replace(CONFIG, light_steps=8, steps=8, batch_users=15, validation_users=8, clip_norm=1e9, seed=2)
ONE_STEP = replace(SHARED, light_steps=0, steps=1)
RUNS: dict[str, tuple[Objective, RecommenderTrainingConfig]] = {
    "mixture": ("mixture", SHARED),
    "dmil": ("dmil", SHARED),
    "mixture-step": ("mixture", ONE_STEP),
    "dmil-step": ("dmil", ONE_STEP),
    "parts": ("dmil", replace(SHARED, accumulation=3)),
    # The second process has one user, and nothing to cut into parts.
    "few": ("mixture", replace(SHARED, batch_users=3, accumulation=2)),
}
STOP = 12  # of 16 steps
# A number added to all scores of a softmax changes nothing: its gradient is rounding, which Adam scales up to a step.
IDLE = "light.attend.bias"


def items(histories: Histories) -> Items:
    generation, codes = BOOK.encode_best(VECTORS)
    return Items(
        vectors_Id=torch.from_numpy(VECTORS),
        codes_IL=torch.from_numpy(codes.astype(np.uint8)),
        generation_I=torch.from_numpy(generation.astype(np.uint8)),
        counts_I=torch.from_numpy(np.bincount(histories.items, minlength=ITEMS)),
    )


def train(
    objective: Objective = "mixture",
    config: RecommenderTrainingConfig = CONFIG,
    histories: Histories = LOG,
    checkpoints: Checkpoints | None = None,
    report: Report | None = None,
    *,
    mask_seen: bool = False,
) -> tuple[dict[str, float], Curve, HyMiRec]:
    torch.manual_seed(0)
    settings = RecommenderConfig(
        interests=2, coarse_interests=4, history=12, recent=4, light_width=16, objective=objective
    )
    llama = LlamaConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        vocab_size=1,
    )
    model, curve = HyMiRec(settings, D, LlamaModel(llama)), []
    model.llm.backbone.get_input_embeddings().requires_grad_(False)
    figures = train_recommender(
        model,
        BOOK.to_module(),
        items(histories),
        histories,
        config,
        report or (lambda step, metrics: curve.append((step, metrics))),
        torch.device("cpu"),
        checkpoints,
        mask_seen=mask_seen,
    )
    return figures, curve, model


def outcome(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and the last step's gradients of a run, and what it reported."""
    figures, curve, model = train(*RUNS[name])
    tensors = {f"weight {key}": tensor for key, tensor in model.state_dict().items()}
    tensors |= {f"gradient {key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
    return tensors, {"figures": figures, "curve": [metrics for _, metrics in curve]}


class _Stopped(Exception):
    """Ends a training in the middle."""


def resumed(folder: Path) -> dict[str, Tensor]:
    """Weights of the run "mixture" when it was stopped and has gone on from its checkpoint."""

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == STOP:
            raise _Stopped

    config, checkpoints = replace(SHARED, checkpoint_steps=7), Checkpoints(Storage(str(folder)), "checkpoints")
    with contextlib.suppress(_Stopped):
        train(config=config, checkpoints=checkpoints, report=stop)
    _, curve, model = train(config=config, checkpoints=checkpoints)
    assert curve[0][0] == 8
    return model.state_dict()


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    weights = {key: tensor.contiguous() for key, tensor in resumed(folder).items()}
    save_file(weights, folder / f"resumed-{dist.get_rank()}.safetensors")
    for name in RUNS:
        tensors, report = outcome(name)
        place = folder / f"{name}-{dist.get_rank()}"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, f"{place}.safetensors")
        place.with_suffix(".json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
