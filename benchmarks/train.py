"""A stage-2 training step beside the bare passes of its language model: time, users a second, FLOP utilisation.

Usage::

    make bench-train
    make bench-train ARGS="--layers 2 --turns 3"

*step*: histories from codes, light recommender, LLM, loss, backward, clipping, optimiser. *bare*: forward and backward
of the same LLM on random input of as many tokens. *product*: one large product of matrices in the same precision, whose
speed stands for the peak. All in turns, in one process: CPU time of one thread, on a GPU the clock after waiting for
it, there in bfloat16. ``mfu`` counts the LLM alone, 6 FLOP a parameter and token and 12 · layers · width · T a token of
attention, over the time and the product's speed; what else a step computes counts as loss. Values are random: they do
not change the time. The last row compares what a user's history sends to a device as item numbers and as vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import nn

from benchmarks.report import Check, Results
from hymirec_model import weights
from hymirec_model.code_table import CodeTable
from hymirec_model.config import RecommenderConfig, RecommenderTrainingConfig
from hymirec_model.devices import training_device
from hymirec_model.histories import Batch
from hymirec_model.hymirec import HyMiRec
from hymirec_model.llm_recommender import load_backbone
from hymirec_model.negatives import Negatives
from hymirec_model.training import Items
from hymirec_model.training_step import BatchReader, TrainingStep
from jobs.platform.local import state_folder

MOST_TIMES, LEAST_MFU, LEAST_BYTES = 1.15, 0.4, 50.0
ITEMS, DIM, CODES, SIDE = 50_000, 192, 12, 2048
Call = Callable[[], object]


def main(
    layers: Annotated[list[int], typer.Option(help="Layers of SmolLM2-135M.")] = [2, 6, 30],  # noqa: B006
    users: Annotated[int, typer.Option(help="Users a step.")] = 32,
    history: Annotated[int, typer.Option(help="Events a user.")] = 500,
    turns: Annotated[int, typer.Option(help="Turns of each contender.")] = 5,
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "train",
) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    torch.set_num_threads(1)
    results, device = Results(name), training_device()
    for count in layers:
        config = RecommenderConfig(backbone_layers=count, history=history)
        backbone = load_backbone(weights.resolve(config.weights, state_folder() / "models"), count)
        contest(results, HyMiRec(config, DIM, backbone).to(device), users, turns, device)
    results.add({"name": "bytes of 1,000 events", **sent_bytes(1000)})
    results.checks = checks(results, device)
    results.write()
    results.show()


def contest(results: Results, model: HyMiRec, users: int, turns: int, device: torch.device) -> None:
    """Time step, bare passes and product in turns, and add a row for each of the first two."""
    precision = torch.bfloat16 if device.type == "cuda" else torch.float32
    square = torch.randn(SIDE, SIDE, device=device, dtype=precision)
    calls: list[Call] = [
        training_step(model, users, device),
        bare_passes(model, users, device),
        lambda: square @ square,
    ]
    for call in calls:
        call()
    measured = np.array([[timed(call, device) for call in calls] for _ in range(turns)])
    middle, spread = np.median(measured, axis=0), measured.std(0)
    peak = 2 * SIDE**3 / middle[2]
    layers = model.llm.backbone.config.num_hidden_layers
    about = {"layers": layers, "users": users, "history": model.config.history, "device": device.type}
    for number, name in enumerate(("step", "bare")):
        seconds = float(middle[number])
        figures = {"s": seconds, "sd": float(spread[number]), "users_per_s": users / seconds}
        mfu = float(model_flop(model, users) / seconds / peak)
        results.add({"name": name, **about, **figures, "mfu": mfu, "peak_gflop_per_s": float(peak / 1e9)})


def tokens(model: HyMiRec) -> int:
    """T: tokens that the LLM reads for a user."""
    return model.config.coarse_interests + model.config.recent + model.config.interests


def model_flop(model: HyMiRec, users: int) -> float:
    """FLOP of the LLM's forward and backward passes on a batch."""
    backbone, length = model.llm.backbone, tokens(model)
    parameters = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    attention = 12 * backbone.config.num_hidden_layers * backbone.config.hidden_size * length
    return float(users * length * (6 * parameters + attention))


def random_batch(users: int, history: int, window: int) -> Batch:
    """Whole histories of random items."""
    every = torch.ones(users, history, dtype=torch.bool)
    events, ages = torch.randint(ITEMS, (users, history)), torch.randint(64, (users, history))
    return Batch(events, ages, every, torch.randint(ITEMS, (users, window)), every[:, :window])


def training_step(model: HyMiRec, users: int, device: torch.device) -> Call:
    """One step as :func:`hymirec_model.training.train_recommender` takes it, with the batch's way to the device."""
    config = RecommenderTrainingConfig(batch_users=users)
    table = CodeTable(torch.randn(1, CODES, 256, DIM), torch.zeros(1, 0, 2))
    items = Items(
        vectors_Id=F.normalize(torch.randn(ITEMS, DIM), dim=-1),
        codes_IL=torch.randint(256, (ITEMS, CODES), dtype=torch.uint8),
        generation_I=torch.zeros(ITEMS, dtype=torch.uint8),
        counts_I=torch.ones(ITEMS, dtype=torch.long),
    )
    step = TrainingStep(BatchReader(model, table, items.to(device)).to(device), config, device)
    batch = random_batch(users, model.config.history, config.window)
    negatives = Negatives(torch.randint(ITEMS, (config.negatives,)), torch.zeros(config.negatives))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6)

    def call() -> None:
        optimizer.zero_grad()
        step.backward(batch, negatives, 0, light_only=False)
        nn.utils.clip_grad_norm_(trained, config.clip_norm)
        optimizer.step()

    return call


def bare_passes(model: HyMiRec, users: int, device: torch.device) -> Call:
    """Forward and backward of the LLM alone."""
    backbone = model.llm.backbone
    inputs = torch.randn(users, tokens(model), backbone.config.hidden_size, device=device, requires_grad=True)

    def call() -> None:
        model.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            output = backbone(inputs_embeds=inputs, use_cache=False).last_hidden_state
        output.float().sum().backward()

    return call


def timed(call: Call, device: torch.device) -> float:
    """Seconds of CPU time, or of the clock for a GPU, which is waited for."""
    if device.type != "cuda":
        start = time.process_time()
        call()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def sent_bytes(events: int) -> dict[str, float]:
    """Bytes of a user's history on the way to a device, and with vectors in the place of item numbers."""
    packed = random_batch(1, events, 0).packed()
    vectors = packed.nbytes() - packed.items_BN.nbytes + 4 * DIM * events
    return {"numbers": packed.nbytes(), "vectors": vectors, "fewer": vectors / packed.nbytes()}


def checks(results: Results, device: torch.device) -> list[Check]:
    """What was asked for; utilisation on a GPU only."""
    made = []
    for row in (row for row in results.rows if row["name"] == "step"):
        bare = results.find(name="bare", layers=row["layers"])
        ratio = row["s"] / bare["s"] if bare else float("nan")
        made.append(Check(f"{row['layers']} layers: time over the bare LLM", ratio, MOST_TIMES, ratio <= MOST_TIMES))
        if device.type == "cuda":
            made.append(Check(f"{row['layers']} layers: MFU", row["mfu"], LEAST_MFU, row["mfu"] >= LEAST_MFU))
    fewer = sent_bytes(1000)["fewer"]
    return [*made, Check("bytes a user, times fewer", fewer, LEAST_BYTES, fewer >= LEAST_BYTES)]


if __name__ == "__main__":
    typer.run(main)
