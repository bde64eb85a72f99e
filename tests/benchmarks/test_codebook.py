"""The peers are measured by the same rule, at the same number of bytes, and the figures mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.codebook import checks, compare, quality, split
from benchmarks.quantizers import OURS, PAPER, PEERS

BYTES = 4
CASE = {"data": "set", "encoder": "e", "bytes": BYTES}
ELSEWHERE = {
    "ResidualVQ"
}  # needs the packages of benchmarks/requirements.txt, which only `make bench-codebook` installs
HERE = {name: fit for name, fit in (OURS | PAPER | PEERS).items() if name not in ELSEWHERE}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    near = rng.normal(size=(60, 16))[rng.integers(60, size=2500)] + 0.6 + 0.5 * rng.normal(size=(2500, 16))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(HERE))
def test_a_contender_takes_the_bytes_it_claims(name: str, vectors: np.ndarray) -> None:
    train, held_out = split(vectors, 0)
    quantizer = HERE[name](train, BYTES, 0)
    codes = quantizer.encode(held_out)
    assert codes.dtype == np.uint8 and codes.shape == (len(held_out), BYTES)
    rebuilt = quantizer.decode(codes)
    cosine = (rebuilt * held_out).sum(1) / np.linalg.norm(rebuilt, axis=1)
    mean = train.mean(0) / np.linalg.norm(train.mean(0))
    # PCA keeps two of sixteen dimensions and no mean: it alone may fall below the mean vector.
    assert cosine.mean() > (0 if name == "faiss PCA+int8" else (held_out @ mean).mean() + 0.1)


def test_exact_vectors_score_one_and_a_mean_vector_nothing(vectors: np.ndarray) -> None:
    train, held_out = split(vectors, 0)
    exact = quality(held_out, np.concatenate([held_out, train]), held_out, train)
    assert all(value == pytest.approx(1) for value in exact.values())
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=part.shape).astype(np.float32) for part in (held_out, train)]
    blind = quality(held_out, np.concatenate([held_out, train]), *noise)
    assert blind["sym"] < 0.06 and blind["sym_all"] < 0.02 and blind["asym_all"] < 0.02


def test_a_peer_ahead_is_a_check_that_fails() -> None:
    figures = {"cosine": 0.9, "sym": 0.5, "asym": 0.6, "sym_all": 0.5, "asym_all": 0.6, "fit_s": 1.0} | CASE
    mine = {"name": "HyMiRec", "encode_per_s": 300.0} | figures
    peer = {"name": "faiss RQ, beam 5", "encode_per_s": 100.0} | figures
    assert all(check.holds for check in checks([mine, peer]))
    ahead = checks([mine, peer | {"sym": 0.51, "encode_per_s": 200.0, "fit_s": 0.5}])
    assert [c.name for c in ahead if not c.holds] == [
        "set, e, 4 bytes: sym (faiss RQ, beam 5)",
        "set, e, 4 bytes: encode speed / faiss RQ's",
        "set, e, 4 bytes: fit time / faiss RQ's",
    ]


def test_results_name_command_and_machine_and_go_on_where_they_stopped(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    contenders = {name: HERE[name] for name in ("HyMiRec", "faiss RQ, beam 5", "faiss PQ")}
    compare(report.Results("codebook"), CASE, vectors, 1, dict(list(contenders.items())[:2]))
    results = report.Results.resumed("codebook")
    first = results.find(name="HyMiRec", **CASE)
    assert first is not None and first["cosine_sd"] == 0
    compare(results, CASE, vectors, 2, contenders)
    results.checks = checks(results.rows)
    written = json.loads(results.write().read_text())
    assert [row["name"] for row in written["rows"]] == ["mean vector", *contenders]
    row = written["rows"][1]
    assert row["runs"][0] == first["runs"][0], "the first seed was measured again"
    assert len(row["runs"]) == 2 and row["cosine_sd"] > 0, "two seeds, two splits"
    assert 0.9 < row["usage"] <= 1 and min(written["rows"][2][f] for f in ("encode_per_s", "encode_lut_per_s")) > 0
    assert {"command", "commit", "date", "machine", "seconds", "checks"} < set(written)
    results.show()
    assert "holds" in capsys.readouterr().out
