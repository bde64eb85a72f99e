from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import report, train
from benchmarks.report import Results
from benchmarks.train import checks, contest, model_flop, sent_bytes, tokens
from tests.small_model import recommender

CPU = torch.device("cpu")


def test_flop_are_those_of_the_language_model() -> None:
    model = recommender()
    trained = sum(p.numel() for p in model.llm.backbone.layers.parameters()) + model.llm.backbone.norm.weight.numel()
    model.llm.backbone.get_input_embeddings().requires_grad_(False)
    assert tokens(model) == 4 + 5 + 3
    assert model_flop(model, 7) == 7 * 12 * (6 * trained + 12 * 1 * 32 * 12)


def test_step_and_bare_passes_are_timed_and_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(train, "ITEMS", 40)
    monkeypatch.setattr(train, "SIDE", 64)
    model = recommender()
    monkeypatch.setattr(train, "DIM", model.dim)
    before = model.light.write.weight.detach().clone()
    results = Results("few", commit="none")
    contest(results, model, 3, 1, CPU)
    assert [(row["name"], row["layers"]) for row in results.rows] == [("step", 1), ("bare", 1)]
    assert all(row["s"] > 0 and row["mfu"] > 0 for row in results.rows)
    assert not torch.equal(model.light.write.weight, before)


def test_checks_hold_the_ratio_and_on_a_gpu_the_utilisation() -> None:
    rows = [{"name": "step", "layers": 2, "s": 1.2, "mfu": 0.5}, {"name": "bare", "layers": 2, "s": 1.0, "mfu": 0.6}]
    found = checks(Results("few", rows, commit="none"), torch.device("cuda"))
    assert [check.holds for check in found] == [False, True, True]
    assert len(checks(Results("few", rows, commit="none"), CPU)) == 2


def test_bytes_are_those_of_the_numbers_that_travel() -> None:
    assert sent_bytes(1000) == {"numbers": 6000, "vectors": 1000 * (4 * 192 + 2), "fewer": pytest.approx(770 / 6)}
