"""Two processes that torchrun starts train the model that one process trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hymirec_model.window_sampler import WindowSampler
from tests.hymirec_model.small_training import IDLE, LOG, RUNS, SHARED, outcome


@pytest.fixture(scope="module")
def together(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that two processes have left their weights, gradients and figures in."""
    folder = tmp_path_factory.mktemp("together")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.hymirec_model.small_training", str(folder)],
        cwd=repository,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,  # processes that wait for each other would do so for ever
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def left(folder: Path, name: str, rank: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    place = folder / f"{name}-{rank}"
    return load_file(f"{place}.safetensors"), json.loads(place.with_suffix(".json").read_text())


def test_their_shares_differ_in_users_and_targets() -> None:
    """Else the average of their means would be the mean of all, and the tests below would show little."""
    shares = [
        next(iter(WindowSampler(LOG, batch_users=15, history=12, window=4, seed=2, held=8, shares=2, share=share)))
        for share in (0, 1)
    ]
    assert (SHARED.batch_users, SHARED.seed) == (15, 2) and [len(share.items_BN) for share in shares] == [8, 7]
    targets = [int(share.target_mask_BW.sum()) / len(share.items_BN) for share in shares]
    assert targets[0] != targets[1]


@pytest.mark.parametrize("name", RUNS)
def test_both_end_with_the_same_weights(together: Path, name: str) -> None:
    (first, report), (second, same_report) = (left(together, name, rank) for rank in (0, 1))
    assert report == same_report
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


@pytest.mark.parametrize("rank", [0, 1])
def test_both_go_on_from_the_checkpoint_of_the_first(together: Path, rank: int) -> None:
    weights, _ = left(together, "mixture", rank)
    for key, tensor in load_file(together / f"resumed-{rank}.safetensors").items():
        assert torch.equal(tensor, weights[f"weight {key}"]), key


@pytest.mark.parametrize("name", RUNS)
def test_losses_and_gradients_are_those_of_one_process(together: Path, name: str) -> None:
    ours, report = left(together, name, 0)
    alone, expected = outcome(name)
    assert ours.keys() == alone.keys() and len(report["curve"]) == len(expected["curve"])
    assert report["figures"] == pytest.approx(expected["figures"], rel=1e-5)
    for metrics, same in zip(report["curve"], expected["curve"], strict=True):
        assert metrics == pytest.approx(same, rel=1e-5)
    one_step = name.endswith("step")
    for key, tensor in alone.items():
        if not key.endswith(IDLE):
            furthest = float((ours[key] - tensor).abs().max() / tensor.abs().max().clamp_min(1e-12))
            assert furthest < (2e-6 if one_step else 1e-4), key
