from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import matching, report
from benchmarks.matching import checks, contest, converting_loop, cpu_time, equal_totals, k_means, loop, problems
from benchmarks.report import Results
from hymirec_model.matching import cluster_targets


def test_problems_have_ties_and_missing_clusters() -> None:
    similarity, valid = problems(4, 200, 0, holes=0.3)
    assert 0.2 < float((~valid).float().mean()) < 0.4
    assert len(similarity[:100].unique()) > 1000 and len(similarity[100:].unique()) == 5


def test_both_loops_find_the_same() -> None:
    assert torch.equal(loop(*problems(3, 50, 1, holes=0.3)), converting_loop(*problems(3, 50, 1, holes=0.3)))


def test_worse_totals_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert equal_totals(4, 50)["cases"] == 50
    monkeypatch.setattr(matching, "match", lambda similarity, valid: loop(-similarity, valid))
    with pytest.raises(SystemExit, match=r"K = 4: seen totals that differ by .*allowed: 1e-06"):
        equal_totals(4, 50)


def test_the_peer_clusters_as_ours_does_where_groups_are_plain() -> None:
    corners = torch.linalg.qr(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))[0].T
    window = corners[[0, 1, 2, 3, 3, 1]] + 0.01
    window /= window.norm(dim=-1, keepdim=True)
    _, labels, _ = cluster_targets(window[None], torch.ones(1, 6, dtype=torch.bool), 4)
    assert k_means(window.numpy(), 4).tolist() == labels[0].tolist()
    assert len(np.unique(k_means(np.tile(window.numpy()[:2], (3, 1)), 4))) == 2


def test_rows_and_checks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    monkeypatch.setattr(matching, "cpu_time", lambda call: call())
    results = Results("few", commit="none")
    times = {"HyMiRec": 2.0, "scipy, a conversion a batch": 60.0, "scipy, a conversion a sample": 120.0}
    about = {"task": "match", "interests": 4, "batch": 256}
    contest(results, about, {name: lambda value=value: value for name, value in times.items()}, 3)
    contest(results, about | {"batch": 32}, {"HyMiRec": lambda: 1.0, "scipy, a conversion a batch": lambda: 1.0}, 3)
    assert [row["us"] for row in results.rows[:3]] == [2e6, 60e6, 120e6] and results.rows[0]["sd"] == 0
    assert [(check.value, check.holds) for check in checks(results)] == [(30.0, False), (60.0, True)]


def test_time_is_that_of_one_call() -> None:
    def call() -> int:
        return sum(range(10_000))

    assert 0 < cpu_time(call, least=0.01) < 0.01
