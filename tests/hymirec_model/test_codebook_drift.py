from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.codebook_drift import fidelity, measure_drift
from hymirec_model.config import CodebookConfig
from hymirec_model.errors import InputError
from tests.hymirec_model.test_codebook import clustered

CONFIG = CodebookConfig(layers=4, size=32, beam=8, iterations=6, drift=0.02)


@pytest.fixture(scope="module")
def book() -> ResidualCodebook:
    return ResidualCodebook(CONFIG).fit(clustered(3000))


def test_exact_codes_lose_nothing_and_the_zero_line_is_the_mean_vector_s(book: ResidualCodebook) -> None:
    vectors = clustered(500)
    exact = fidelity(vectors, vectors)
    assert exact.vectors == 500 and exact.cosine == pytest.approx(1) and exact.neighbour_recall == 1
    mean = vectors.mean(0) / np.linalg.norm(vectors.mean(0))
    assert exact.zero_line == pytest.approx((vectors @ mean).mean())
    flat = fidelity(vectors, np.tile(mean, (500, 1)))
    assert flat.cosine == pytest.approx(exact.zero_line) and flat.neighbour_recall < 0.1
    coded = fidelity(vectors, book.decode(book.encode(vectors)))
    assert exact.zero_line < coded.cosine < 1 and 0.3 < coded.neighbour_recall < 1


def test_nothing_to_measure_is_nan_not_a_figure() -> None:
    empty = fidelity(np.empty((0, 16), np.float32), np.empty((0, 16), np.float32))
    assert empty.vectors == 0 and math.isnan(empty.cosine) and math.isnan(empty.neighbour_recall)
    few = fidelity(clustered(10), clustered(10))
    assert few.cosine == pytest.approx(1) and math.isnan(few.neighbour_recall)


def test_no_arrivals_are_no_drift(book: ResidualCodebook) -> None:
    drift = measure_drift(book, clustered(500), np.empty((0, 16), np.float32), CONFIG)
    assert drift.why == "" and drift.arrivals.vectors == 0 and math.isnan(drift.arrivals.cosine)
    assert drift.base.cosine > 0.9 and drift.base.neighbour_recall > 0.3, "the base pool is measured all the same"


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_arrivals_like_the_others_do_not_drift(seed: int) -> None:
    assert measure_drift(_book(), clustered(2000), clustered(600, seed=seed + 1), CONFIG).why == ""


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_strange_arrivals_drift_until_a_generation_knows_them(seed: int) -> None:
    new = clustered(600, seed=seed + 1, centres_seed=seed + 1_000)
    drift = measure_drift(_book(), clustered(2000), new[:300], CONFIG)
    assert drift.base.cosine - drift.arrivals.cosine > CONFIG.drift
    assert drift.why.startswith("300 different arrivals have cosine")
    grown = ResidualCodebook(CONFIG)
    grown.table_, grown.coefficient_range_, grown.reports_ = _book().table_, _book().coefficient_range_, [{}]
    grown.partial_fit(new[:300])
    after = measure_drift(grown, clustered(2000), new[:300], CONFIG)
    assert after.why == "" and after.arrivals.cosine > drift.arrivals.cosine + 0.02
    assert after.base.cosine >= drift.base.cosine - 1e-6, "known items may only gain"


def test_neighbours_alone_can_tell(book: ResidualCodebook) -> None:
    """Items close together: their codes lie near them and yet tell none apart."""
    rng = np.random.default_rng(0)
    close = clustered(1)[0] + 0.02 * rng.normal(size=(400, 16))
    close = (close / np.linalg.norm(close, axis=1, keepdims=True)).astype(np.float32)
    drift = measure_drift(book, clustered(2000), close, replace(CONFIG, drift=0.5))
    assert "neighbour recall" in drift.why and drift.base.neighbour_recall - drift.arrivals.neighbour_recall > 0.05
    assert measure_drift(book, clustered(2000), close, replace(CONFIG, drift=0.5, drift_recall=0.9)).why == ""


def test_fewer_different_arrivals_than_entries_wait(book: ResidualCodebook) -> None:
    new = np.repeat(clustered(32, seed=5, centres_seed=900), 4, axis=0)
    assert measure_drift(book, clustered(2000), new, CONFIG).why != ""
    assert measure_drift(book, clustered(2000), new[4:], CONFIG).why == ""


def test_bad_vectors_are_named(book: ResidualCodebook) -> None:
    bad = clustered(50)
    bad[7] = np.nan
    with pytest.raises(InputError, match="row 7 of length nan"):
        measure_drift(book, clustered(500), bad, CONFIG)
    with pytest.raises(InputError, match=r"got shape \(50, 8\)"):
        measure_drift(book, clustered(500), clustered(50, dim=8), CONFIG)


_BOOKS: list[ResidualCodebook] = []


def _book() -> ResidualCodebook:
    if not _BOOKS:
        _BOOKS.append(ResidualCodebook(CONFIG).fit(clustered(3000)))
    return _BOOKS[0]
