from __future__ import annotations

import pytest

from benchmarks.embed import BLOCK, PEER_BATCHES, blocks, cases, check_states, check_tokens, checks, timed


def test_ours_is_compared_with_the_best_batch_size_of_the_peer() -> None:
    case = cases(["minilm-l6"], [1])[0].row()
    other = cases(["smollm2-135m"], [1])[0].row()
    rows = [
        {"name": "deduplication", "products": 3, "texts": 1, "ratio": 3.0},
        {"name": "HyMiRec", **case, "texts_per_s": 12.0},
        {"name": "sentence-transformers, batch 32", **case, "texts_per_s": 8.0},
        {"name": "sentence-transformers, batch 8", **case, "texts_per_s": 10.0},
        {"name": "HyMiRec", **other, "texts_per_s": 4.0},
        {"name": "sentence-transformers, batch 32", **other, "texts_per_s": 2.0},
    ]
    assert [(check.value, check.bound, check.holds) for check in checks(rows)] == [(1.2, 1.3, False), (2.0, 1.3, True)]


def test_the_default_batch_of_the_peer_is_among_those_measured() -> None:
    assert PEER_BATCHES[0] == 32 and len(PEER_BATCHES) == 3


def test_every_case_is_measured_on_one_thread_and_on_two() -> None:
    found = cases(["minilm-l6", "smollm2-135m"], [1, 2])
    assert len(found) == len(set(found)) == 12
    assert {case.threads for case in found} == {1, 2}


def test_time_of_the_cpu_and_of_the_clock_are_measured() -> None:
    cpu, clock = timed(lambda: sum(range(10**5)))  # type: ignore[arg-type, return-value]
    assert cpu > 0 and clock > 0


def test_speeds_of_other_work_are_refused() -> None:
    case = cases(["smollm2-135m"], [1])[0]
    check_tokens(case.weights, [3, 4], [3, 4])
    with pytest.raises(SystemExit, match="seen 7 tokens of ours, 12 of the peer; allowed: the same"):
        check_tokens(case.weights, [3, 4], [6, 6])
    check_states(case, 1e-6)
    for difference in (0.77, float("nan")):
        with pytest.raises(SystemExit, match=r"smollm2-135m, float32: states differ by .*; allowed: 0\.0001"):
            check_states(case, difference)


def test_texts_are_read_with_their_neighbours() -> None:
    texts = [f"{number:04d}" for number in range(20 * BLOCK + 5)]
    found = [int(text) for text in blocks(texts, 3 * BLOCK - 1)]
    assert len(found) == len(set(found)) == 3 * BLOCK
    assert all(found[i + 1] == found[i] + 1 for i in range(len(found) - 1) if (i + 1) % BLOCK)
