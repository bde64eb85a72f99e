from __future__ import annotations

import doctest
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hymirec_model.codebook
from hymirec_model.beam_search import beam_search
from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig
from hymirec_model.errors import InputError

SMALL = CodebookConfig(layers=4, size=32, beam=8, iterations=6)


def clustered(n: int, dim: int = 16, seed: int = 0, centres_seed: int = 100) -> np.ndarray:
    """Unit vectors around 40 directions with a common mean, as item texts are."""
    centres = np.random.default_rng(centres_seed).normal(size=(40, dim)) + 0.7
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(40, size=n)] + 0.5 * rng.normal(size=(n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def cosine(book: ResidualCodebook, vectors: np.ndarray, generation: int = 0) -> float:
    return float((book.decode(book.encode(vectors, generation), generation) * vectors).sum(1).mean())


@pytest.fixture(scope="module")
def book() -> ResidualCodebook:
    return ResidualCodebook(SMALL).fit(clustered(3000))


@pytest.fixture(scope="module")
def paper_book() -> ResidualCodebook:
    config = CodebookConfig(layers=4, size=32, form="projection", iterations=6)
    return ResidualCodebook(config).fit(clustered(3000))


def test_example() -> None:
    assert doctest.testmod(hymirec_model.codebook).failed == 0


def test_held_out_vectors_are_rebuilt(book: ResidualCodebook, paper_book: ResidualCodebook) -> None:
    held_out = clustered(1000, seed=1)
    zero_line = held_out @ (held_out.mean(0) / np.linalg.norm(held_out.mean(0)))
    assert cosine(book, held_out) > 0.94 > zero_line.mean() + 0.2
    assert cosine(book, held_out) > cosine(paper_book, held_out) > zero_line.mean()
    rebuilt = book.decode(book.encode(held_out))
    assert np.allclose(np.linalg.norm(rebuilt, axis=1), 1, atol=1e-5)
    usage = [len(np.unique(column)) for column in book.encode(clustered(3000)).T]
    assert min(usage) > 0.9 * SMALL.size


def test_vectors_of_large_weight_are_served_best() -> None:
    """Few items make up most of a log: they are rebuilt better, the others worse, than by an even book."""
    vectors = clustered(3000)
    often = np.arange(len(vectors)) < 100
    even = ResidualCodebook(SMALL).fit(vectors)
    weighted = ResidualCodebook(SMALL).fit(vectors, np.where(often, 300, 1))
    assert cosine(weighted, vectors[often]) > cosine(even, vectors[often]) + 0.01
    assert cosine(weighted, vectors[~often]) < cosine(even, vectors[~often])
    order = np.random.default_rng(0).permutation(len(vectors))
    again = ResidualCodebook(SMALL).fit(vectors[order], np.where(often, 300, 1)[order])
    assert np.array_equal(again.table_, weighted.table_), "the order of the rows matters"


@pytest.mark.parametrize("weight", [np.ones(9), -np.ones(10), np.full(10, np.nan), np.zeros(10)])
def test_weights_that_are_none_are_named(weight: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"sample_weight: got shape .* required \(10,\), finite, >= 0 and not all 0"):
        ResidualCodebook(SMALL).fit(clustered(10), weight)


def test_beats_faiss_residual_quantiser_at_equal_bytes() -> None:
    import faiss

    train, held_out = clustered(6000, dim=32), clustered(1500, dim=32, seed=1)
    faiss.omp_set_num_threads(1)
    quantiser = faiss.ResidualQuantizer(32, 4, 6)
    quantiser.max_beam_size = 5
    quantiser.train(train)
    rebuilt = quantiser.decode(quantiser.compute_codes(held_out))
    peer = (rebuilt * held_out).sum(1) / np.linalg.norm(rebuilt, axis=1)
    ours = ResidualCodebook(CodebookConfig(layers=4, size=64)).fit(train)
    assert cosine(ours, held_out) > peer.mean()


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 16))
def test_a_wider_beam_never_loses_on_average(seed: int, width: int) -> None:
    vectors, table = torch.from_numpy(clustered(400, seed=seed + 1)), torch.from_numpy(_cached_book().table_[0])
    narrow, wide = (beam_search(vectors, table, w).cosine[:, 0].mean() for w in (width, 2 * width))
    assert wide >= narrow - 1e-6


def test_beam_as_wide_as_the_book_finds_the_best_codes() -> None:
    book = ResidualCodebook(CodebookConfig(layers=2, size=8, beam=64, iterations=5)).fit(clustered(500))
    vectors = clustered(50, seed=3)
    every = np.stack(np.meshgrid(range(8), range(8), indexing="ij"), -1).reshape(-1, 2).astype(np.uint8)
    best = (vectors @ book.decode(every).T).max(1)
    assert np.allclose((book.decode(book.encode(vectors)) * vectors).sum(1), best, atol=1e-5)


@pytest.mark.parametrize("n", [400, 4000])
def test_joint_refit_serves_held_out_vectors_better(n: int) -> None:
    """With ten vectors an entry as with one for each three."""
    held_out, train = clustered(1000, seed=1), clustered(n)
    refitted, plain = (
        cosine(ResidualCodebook(replace(SMALL, layers=6, refit_rounds=rounds)).fit(train), held_out)
        for rounds in (2, 0)
    )
    assert refitted > plain + 0.001


def test_same_seed_same_book_whatever_the_threads_and_the_order_of_rows(book: ResidualCodebook) -> None:
    vectors = clustered(3000)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        again = ResidualCodebook(SMALL).fit(np.concatenate([vectors, vectors[:500]])[::-1])
        codes = again.encode(vectors)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(again.table_, book.table_)
    assert np.array_equal(codes, book.encode(vectors))
    other = ResidualCodebook(CodebookConfig(layers=4, size=32, beam=8, iterations=6, seed=1)).fit(vectors)
    assert not np.array_equal(other.table_, book.table_)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(0, 40))
def test_codes_do_not_depend_on_the_rows_beside(n: int, start: int) -> None:
    book = _cached_book()
    vectors = clustered(100, seed=8)
    together = book.encode(vectors)
    assert np.array_equal(book.encode(vectors[start : start + n]), together[start : start + n])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_rebuilt_vector_keeps_its_direction_when_coded_again(seed: int) -> None:
    """encode . decode is a projection: what it yields, it can yield again at least as well."""
    book = _cached_book()
    rebuilt = book.decode(book.encode(clustered(20, seed=seed)))
    again = book.decode(book.encode(rebuilt))
    assert (again * rebuilt).sum(1).mean() > 0.99


_BOOKS: list[ResidualCodebook] = []


def _cached_book() -> ResidualCodebook:
    if not _BOOKS:
        _BOOKS.append(ResidualCodebook(SMALL).fit(clustered(2000)))
    return _BOOKS[0]


def test_a_new_generation_serves_new_items_and_leaves_old_codes_alone(tmp_path: Path) -> None:
    old, new = clustered(2000), clustered(1500, seed=5, centres_seed=900)
    book = ResidualCodebook(SMALL).fit(old)
    codes_before, table_before = book.encode(old), book.table_.copy()
    frozen = cosine(book, new)
    book.partial_fit(new)
    assert book.generations_ == 2
    assert np.array_equal(book.table_[0], table_before[0])
    assert np.array_equal(book.encode(old, 0), codes_before)
    assert cosine(book, new, 1) > frozen + 0.03

    mixed = np.concatenate([old[:300], new[:300]])
    generations, codes = book.encode_best(mixed)
    assert (generations[:300] == 0).mean() > 0.9 and (generations[300:] == 1).mean() > 0.9
    best = (book.decode(codes, generations) * mixed).sum(1)
    for generation in (0, 1):
        alone = (book.decode(book.encode(mixed, generation), generation) * mixed).sum(1)
        assert (best >= alone - 1e-6).all()

    book.save(tmp_path / "book")
    loaded = ResidualCodebook.load(tmp_path / "book")
    assert np.array_equal(loaded.decode(codes, generations), book.decode(codes, generations))
    with pytest.raises(InputError, match="none given, but the book has 2"):
        book.decode(codes)


@pytest.mark.parametrize("form", ["additive", "projection"])
def test_save_and_load_are_bit_equal(
    form: str, book: ResidualCodebook, paper_book: ResidualCodebook, tmp_path: Path
) -> None:
    original = book if form == "additive" else paper_book
    original.save(tmp_path / "a")
    loaded = ResidualCodebook.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    for name in ("codebook.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert loaded.config == original.config and loaded.reports_ == original.reports_
    vectors = clustered(100, seed=6)
    codes = original.encode(vectors)
    assert np.array_equal(loaded.encode(vectors), codes)
    assert np.array_equal(loaded.decode(codes), original.decode(codes))


def test_module_decodes_ragged_shapes_like_the_estimator(paper_book: ResidualCodebook) -> None:
    for book in (_cached_book(), paper_book):
        vectors = clustered(24, seed=7)
        codes = torch.from_numpy(book.encode(vectors)).long().view(4, 6, -1)
        module = book.to_module()
        assert sum(p.numel() for p in module.parameters()) == 0
        decoded = module(codes, torch.zeros(4, 6, dtype=torch.long))
        assert decoded.shape == (4, 6, 16)
        assert np.array_equal(decoded.view(24, 16).numpy(), book.decode(book.encode(vectors)))


def test_float16_vectors_are_welcome(book: ResidualCodebook) -> None:
    vectors = clustered(200, seed=9)
    half = book.encode(vectors.astype(np.float16))
    assert (half == book.encode(vectors)).all(1).mean() > 0.9


def broken(row: int, value: float) -> np.ndarray:
    vectors = clustered(100)
    vectors[row] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (broken(7, np.nan), r"1 of 100 are not of unit length; the first is row 7 of length nan"),
        (broken(3, np.inf), r"row 3 of length inf"),
        (broken(2, 0.0), r"row 2 of length 0, required 1"),
        (clustered(100) * 2, r"100 of 100 .* length 2"),
        (clustered(100)[:, :15], r"got shape \(100, 15\) float32, expected floating point \(n, 16\)"),
        (clustered(100)[0], r"got shape \(16,\)"),
        (np.zeros((3, 16), np.int64), r"int64, expected floating point"),
    ],
)
def test_bad_vectors_are_named(book: ResidualCodebook, vectors: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        book.encode(vectors)
    with pytest.raises(InputError, match=message.replace("16", "(16|dimensions)")):
        if vectors.ndim == 2 and vectors.shape[1] == 15:
            book.partial_fit(vectors)
        else:
            ResidualCodebook(SMALL).fit(vectors)


def test_bad_use_is_named(book: ResidualCodebook, tmp_path: Path) -> None:
    few = np.repeat(clustered(20), 10, axis=0)
    with pytest.raises(
        InputError,
        match=r"20 distinct ones of 200, but 32 entries a layer need .* codebook\.size to a power of two up to 20",
    ):
        ResidualCodebook(SMALL).fit(few)
    with pytest.raises(InputError, match="0 distinct ones of 0"):
        ResidualCodebook(SMALL).fit(np.zeros((0, 16), np.float32))
    with pytest.raises(InputError, match="0 distinct ones of 0"):
        ResidualCodebook(SMALL).fit(clustered(500)).partial_fit(np.zeros((0, 16), np.float32))
    with pytest.raises(InputError, match="not fitted"):
        ResidualCodebook(SMALL).encode(clustered(3))
    with pytest.raises(InputError, match="even number"):
        ResidualCodebook(CodebookConfig(layers=3, form="projection"))
    codes = book.encode(clustered(5))
    with pytest.raises(InputError, match="got 1 to 1, the book has 0 to 0"):
        book.decode(codes, 1)
    with pytest.raises(InputError, match="generation: got 4, the book has 0 to 0"):
        book.encode(clustered(5), 4)
    with pytest.raises(InputError, match="the book has entries 0 to 31"):
        book.decode(codes + 100)
    with pytest.raises(InputError, match=r"codes: got shape \(5, 3\)"):
        book.decode(codes[:, :3])
    with pytest.raises(InputError, match=r"has no config\.json"):
        ResidualCodebook.load(tmp_path)
    assert book.encode(np.zeros((0, 16), np.float32)).shape == (0, 4)
    assert book.decode(np.zeros((0, 4), np.uint8)).shape == (0, 16)


def test_exactly_as_many_items_as_entries_are_coded_exactly() -> None:
    vectors = clustered(32)
    book = ResidualCodebook(SMALL).fit(vectors)
    assert cosine(book, vectors) > 0.9999
