from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from hymirec_model.config import IndexConfig
from hymirec_model.errors import InputError
from hymirec_model.index import (
    best_scores,
    build_index,
    exact_floor,
    fill,
    fill_in_parts,
    load_index,
    save_index,
    tie_aware_recall,
)
from hymirec_model.index_types import TYPES, train, train_lists


def clustered(n: int, seed: int, dim: int = 32) -> np.ndarray:
    centres = np.random.default_rng(50).normal(size=(60, dim)) + 0.4
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(60, size=n)] + 0.6 * rng.normal(size=(n, dim))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float16).astype(np.float32)  # as the warehouse keeps them


@pytest.fixture(scope="module")
def items() -> np.ndarray:
    """6,000 items of 3,000 texts: every vector twice."""
    return np.repeat(clustered(3000, seed=0), 2, axis=0)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return clustered(100, seed=1)


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_each_type_reaches_the_target_and_repeats_byte_for_byte(
    kind: str, items: np.ndarray, queries: np.ndarray, tmp_path: Path
) -> None:
    config = IndexConfig(types=(kind,), target_recall=0.98, neighbours=50)  # type: ignore[arg-type]
    index, report = build_index(items, queries, config)
    exact = faiss.IndexFlatIP(items.shape[1])
    exact.add(items)
    floor = exact.search(queries, 50)[0][:, -1]
    ids = index.search(queries, 50 * report.fetch)[1]
    scores = -np.sort(-(items[ids] * queries[:, None]).sum(2), axis=1)[:, :50]
    assert report.chosen.type == kind
    assert report.chosen.recall == pytest.approx(tie_aware_recall(scores, floor)) and report.chosen.recall >= 0.98

    faiss.omp_set_num_threads(2)
    again, report_again = build_index(items, queries, config)
    faiss.omp_set_num_threads(1)
    assert report.facts() == report_again.facts()
    json.dumps(report.facts())
    save_index(index, tmp_path / "a")
    save_index(again, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size == report.bytes
    assert TYPES[kind].size(*items.shape) == pytest.approx(report.bytes, rel=0.15)
    for memory_mapped in (False, True):
        loaded = load_index(tmp_path / "a", memory_mapped)
        assert np.array_equal(loaded.search(queries, 50 * report.fetch)[1], ids), "the setting was not stored with it"


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_parts_filled_by_threads_make_the_index_of_one_thread(
    kind: str, items: np.ndarray, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hymirec_model.index.SHARD", 500)  # 12 shards
    centres = train_lists(items, seed=0)
    made = []
    for threads in (1, 5, 64):
        index = fill_in_parts(TYPES[kind], train(TYPES[kind], items, 0, centres), items, threads)
        made.append(faiss.serialize_index(index).tobytes())
        assert index.ntotal == len(items)
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_vectors_are_read_a_shard_at_a_time_from_a_file(
    kind: str, items: np.ndarray, queries: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = IndexConfig(types=(kind,), target_recall=0.9, neighbours=50)  # type: ignore[arg-type]
    whole, report = build_index(items, queries, config)
    np.save(tmp_path / "vectors.npy", items.astype(np.float16))
    file = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    if kind != "hnsw":  # a graph grows in another order; the others do not notice
        monkeypatch.setattr("hymirec_model.index.SHARD", 700)
    sharded, report_sharded = build_index(file, queries, config)
    assert faiss.serialize_index(sharded).tobytes() == faiss.serialize_index(whole).tobytes()
    assert report_sharded.facts() == report.facts()


def test_exact_floor_is_that_of_an_exact_search(items: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = clustered(7, seed=9)
    exact = -np.sort(-(queries @ items.T), axis=1)
    monkeypatch.setattr("hymirec_model.index.SHARD", 64)
    for neighbours in (1, 10, 500, len(items)):
        assert np.allclose(exact_floor(items, queries, neighbours), exact[:, neighbours - 1], atol=1e-6)


@pytest.mark.parametrize(("megabytes", "fits"), [(0.7, set(TYPES)), (0.3, {"ivf-int8", "ivf-int4", "ivf-pq"})])
def test_an_index_stays_within_the_memory_given(
    megabytes: float, fits: set[str], items: np.ndarray, queries: np.ndarray
) -> None:
    config = IndexConfig(types=tuple(TYPES), memory_mb=megabytes, target_recall=0.95, neighbours=50)  # type: ignore[arg-type]
    report = build_index(items, queries, config)[1]
    assert report.bytes <= 1e6 * megabytes and report.chosen.recall >= 0.95
    assert {trial.type for trial in report.tried} <= fits
    with pytest.raises(InputError, match=r"no index of 6,000 vectors fits into index.memory_mb 0 \(seen: flat 0 MB"):
        build_index(items, queries, IndexConfig(memory_mb=0.01))


@pytest.mark.parametrize("kind", ["ivf", "ivf-int8", "ivf-int4"])
def test_an_index_grows_without_training(kind: str, items: np.ndarray, queries: np.ndarray) -> None:
    """Five times as many items later, more probes reach the target again."""
    config = IndexConfig(types=(kind,), target_recall=0.95, neighbours=50)  # type: ignore[arg-type]
    index, report = build_index(items, queries, config)
    more = np.vstack([clustered(6000, seed) for seed in range(20, 24)])
    every = np.vstack([items, more])
    fill(index, more)
    assert index.ntotal == 5 * len(items)
    floor = exact_floor(every, queries, 50)
    recalls = []
    for probes in (index.nprobe, index.nlist):
        index.nprobe = probes
        ids = index.search(queries, 50 * report.fetch)[1]
        recalls.append(tie_aware_recall(best_scores(every, queries, ids, 50), floor))
    assert recalls[0] > 0.8 and recalls[1] > 0.995


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
    monkeypatch.setattr("hymirec_model.index_types.HNSW_LINKS", 2)
    monkeypatch.setattr("hymirec_model.index_types.HNSW_BUILD", 2)
    config = IndexConfig(types=("hnsw",), target_recall=1.0, neighbours=50)
    with pytest.raises(InputError, match=r"no index reaches recall@50 1.0 \(seen: hnsw .*add flat"):
        build_index(items, queries, config)
