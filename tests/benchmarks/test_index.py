from __future__ import annotations

import numpy as np
import pytest

from benchmarks import index
from benchmarks.index import catalogue, checks, first_setting, growth, mixtures, recall, timed
from benchmarks.index_contenders import contenders
from hymirec_model.index import exact_floor


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "QUERIES", 40)


def test_ours_and_the_peers_from_faiss_are_measured_by_one_rule() -> None:
    vectors = catalogue(3000)
    queries = mixtures(vectors, seed=0)
    floor = exact_floor(vectors, queries, 100)
    builders = contenders(vectors, mixtures(vectors, seed=1), target=0.9)
    found = {name: build() for name, build in builders.items() if name not in ("usearch", "hnswlib")}
    assert list(found) == ["HyMiRec", "HyMiRec, small", "faiss Flat", "faiss IVF,Flat", "faiss IVF,PQ", "faiss HNSW32"]
    assert found["HyMiRec, small"].bytes <= 0.6 * vectors.nbytes * 1.02
    for name, made in found.items():
        search = made.at(made.settings[-1])
        ids = np.concatenate([search(queries[i : i + 8]) for i in range(0, len(queries), 8)])
        assert recall(vectors, queries, ids, floor) == pytest.approx(1.0, abs=0.1), name
        assert timed(search, queries) > 0 and made.build_s > 0
    exact = found["faiss Flat"].at(0)(queries)
    assert recall(vectors, queries, exact, floor) > 0.999
    assert recall(vectors, queries, exact[:, ::-1][:, :100], floor) > 0.999, (
        "the order of what was found does not count"
    )


def test_the_setting_is_the_first_of_the_ladder_that_reaches_the_target() -> None:
    vectors = catalogue(3000)
    queries = mixtures(vectors, seed=0)
    floor = exact_floor(vectors, queries, 100)
    contender = contenders(vectors, queries, target=0.9)["faiss IVF,Flat"]()

    def recall_at(setting: int) -> float:
        return recall(vectors, queries, contender.at(setting)(queries), floor)

    found = first_setting(contender, vectors, queries, floor, target=0.9)
    assert found["recall"] >= 0.9
    assert found["setting"] == next(setting for setting in contender.settings if recall_at(setting) >= 0.9)
    missed = first_setting(contender, vectors, queries, floor, target=1.1)
    assert missed["setting"] == contender.settings[-1] and missed["recall"] == pytest.approx(1.0, abs=1e-3)


def test_queries_are_others_than_those_that_an_index_is_chosen_by() -> None:
    vectors = catalogue(500)
    assert not np.allclose(mixtures(vectors, seed=0), mixtures(vectors, seed=1))
    assert np.array_equal(catalogue(500), vectors)


def test_growth_compares_with_an_index_trained_on_everything() -> None:
    row = growth(1000, target=0.9)
    assert row["recall_before"] >= 0.9 and 0.5 < row["recall_grown"] <= 1
    assert max(row["recall_grown"], row["recall_more_probes"]) >= 0.9 and row["recall_trained_anew"] > 0.8


def test_a_peer_counts_where_it_reaches_the_target_and_fits() -> None:
    row = {"items": 10, "recall": 0.995, "bytes_an_item": 100.0}
    rows = [
        row | {"name": "HyMiRec (ivf)", "queries_per_s": 5.0},
        row | {"name": "HyMiRec, small (ivf-pq)", "queries_per_s": 3.0},
        row | {"name": "fast and wrong", "queries_per_s": 99.0, "recall": 0.9},
        row | {"name": "fast and large", "queries_per_s": 4.0, "bytes_an_item": 1000.0},
    ]
    assert [(check.value, check.bound) for check in checks(rows) if "queries" in check.name] == [(5.0, 4.0), (3.0, 0.0)]
