from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from hymirec_model.config import IndexConfig
from hymirec_model.errors import InputError
from hymirec_model.index import build_index, load_index, save_index, tie_aware_recall


def clustered(n: int, seed: int, dim: int = 32) -> np.ndarray:
    centres = np.random.default_rng(50).normal(size=(60, dim)) + 0.4
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(60, size=n)] + 0.6 * rng.normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def items() -> np.ndarray:
    """6,000 items of 3,000 texts: every vector twice."""
    return np.repeat(clustered(3000, seed=0), 2, axis=0)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(100, seed=1)


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_each_type_reaches_the_target_and_repeats_byte_for_byte(
    kind: str, items: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    config = IndexConfig(types=(kind,), target_recall=0.98, neighbours=50)  # type: ignore[arg-type]
    index, report = build_index(items, queries, config)
    exact = faiss.IndexFlatIP(items.shape[1])
    exact.add(items)
    floor = exact.search(queries, 50)[0][:, -1]
    found, ids = index.search(queries, 50)
    assert report.chosen.type == kind
    assert report.chosen.recall == pytest.approx(tie_aware_recall(found, floor)) and report.chosen.recall >= 0.98
    assert np.allclose((items[ids] * queries[:, None]).sum(2), found, atol=1e-5), "ids are not row numbers"

    faiss.omp_set_num_threads(2)
    again, report_again = build_index(items, queries, config)
    faiss.omp_set_num_threads(1)
    assert report.facts() == report_again.facts()
    json.dumps(report.facts())
    save_index(index, tmp_path / "a")
    save_index(again, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size == report.bytes
    loaded = load_index(tmp_path / "a")
    assert np.array_equal(loaded.search(queries, 50)[1], ids), "the search setting was not stored with the index"


def test_the_cheapest_type_is_chosen(items: np.ndarray, queries: np.ndarray) -> None:
    small = build_index(items[:300], queries, IndexConfig())[1]
    assert small.chosen.type == "flat" and small.chosen.recall == 1.0
    large = build_index(items, queries, IndexConfig())[1]
    assert large.chosen.type == "ivf"
    reached = [trial for trial in large.tried if trial.recall >= large.target_recall]
    assert large.chosen.cost == min(trial.cost for trial in reached)
    assert large.chosen.microseconds > 0


def test_setting_is_no_dearer_than_the_target_asks(items: np.ndarray, queries: np.ndarray) -> None:
    loose = build_index(items, queries, IndexConfig(types=("ivf",), target_recall=0.8))[1]
    strict = build_index(items, queries, IndexConfig(types=("ivf",), target_recall=1.0))[1]
    assert loose.chosen.cost < strict.chosen.cost
    assert strict.chosen.recall == 1.0


def test_recall_counts_equal_items_as_found() -> None:
    scores = np.array([[0.9, 0.8, 0.8 - 5e-7], [0.9, 0.8, 0.7]])
    assert tie_aware_recall(scores, np.array([0.8, 0.8])) == pytest.approx(5 / 6)
    same = np.tile(clustered(1, seed=3), (500, 1))
    assert build_index(same, clustered(5, seed=4), IndexConfig(types=("ivf",), neighbours=10))[1].chosen.recall == 1.0


def test_fewer_items_than_neighbours(queries: np.ndarray) -> None:
    index, report = build_index(clustered(7, seed=2), queries, IndexConfig())
    assert report.neighbours == 7 and index.ntotal == 7


def test_bad_input_is_named(items: np.ndarray, queries: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 0 vectors and 100 queries"):
        build_index(items[:0], queries, IndexConfig())
    with pytest.raises(InputError, match=r"got shape \(100, 31\)"):
        build_index(items, queries[:, :31], IndexConfig())
    with pytest.raises(InputError, match="not of unit length"):
        build_index(items * 2, queries, IndexConfig())
    (tmp_path / "index.faiss").write_bytes(b"not an index")
    with pytest.raises(InputError, match="not a faiss index"):
        load_index(tmp_path / "index.faiss")
    with pytest.raises(InputError, match="not a faiss index"):
        load_index(tmp_path / "missing")


def test_out_of_reach_target_says_what_was_seen(
    items: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hymirec_model.index.HNSW_LINKS", 2)
    monkeypatch.setattr("hymirec_model.index.HNSW_BUILD", 2)
    config = IndexConfig(types=("hnsw",), target_recall=1.0, neighbours=50)
    with pytest.raises(InputError, match=r"no index reaches recall@50 1.0 \(seen: hnsw .*add flat"):
        build_index(items, queries, config)
