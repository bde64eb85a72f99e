"""The scale benchmark runs the real jobs and measures the memory of all their processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import codebook_scale, report
from benchmarks.job_runs import run_job
from jobs.platform.warehouse import Warehouse


@pytest.mark.integration
def test_runs_the_jobs_on_a_small_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(codebook_scale, "PROFILE", "codebook: {layers: 2, size: 16, iterations: 1, refit_rounds: 0}\n")
    codebook_scale.main(items=[3_000], name="small", folder=tmp_path)
    written = json.loads((tmp_path / "results" / "small.json").read_text())
    rows = {row["name"]: row for row in written["rows"]}
    assert rows["fit_codebook"]["peak_mib"] > 100 and rows["encode_items"]["peak_mib"] > 300
    assert rows["encode, one process"]["vectors_per_s"] > rows["encode, one process"]["spark_vectors_per_s"]
    assert 0 < rows["decode, cpu"]["share_of_copy"] < 1


@pytest.mark.integration
def test_memory_of_a_fit_does_not_grow_with_the_vectors(tmp_path: Path) -> None:
    profile = tmp_path / "small.yaml"
    profile.write_text("codebook: {layers: 2, size: 16, iterations: 1, fit_sample: 2000}\n")
    peaks = []
    for size in (100_000, 900_000):
        wh = Warehouse(str(tmp_path / str(size)))
        codebook_scale.write_day(wh, size)
        peaks.append(run_job("fit_codebook", wh, codebook_scale.DAY, profile, tmp_path)["peak_mib"])
    vectors_mib = 800_000 * codebook_scale.DIM * 2 / 2**20
    assert peaks[1] - peaks[0] < vectors_mib / 2, "293 MiB more vectors"


def test_growing_memory_is_a_check_that_fails() -> None:
    rows = [
        {"name": "fit_codebook", "items": 100_000, "peak_mib": 1000.0},
        {"name": "fit_codebook", "items": 1_100_000, "peak_mib": 1050.0},
        {"name": "encode_items", "items": 100_000, "peak_mib": 1000.0},
        {"name": "encode_items", "items": 1_100_000, "peak_mib": 1400.0},
    ]
    assert [check.name for check in codebook_scale.checks(rows) if not check.holds] == [
        "encode_items: bytes of memory an item more"
    ]
