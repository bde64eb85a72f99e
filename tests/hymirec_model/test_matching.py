from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from hymirec_model.errors import InputError
from hymirec_model.matching import cluster_targets, match


def scipy_total(similarity: np.ndarray, valid: np.ndarray) -> tuple[float, int]:
    columns = similarity[:, valid].astype(np.float64)
    rows, chosen = linear_sum_assignment(columns, maximize=True)
    return float(columns[rows, chosen].sum()), len(rows)


@pytest.mark.parametrize(
    ("n_interests", "n_clusters"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (4, 2), (3, 5), (8, 3)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_match_equals_scipy(n_interests: int, n_clusters: int, ties: bool) -> None:
    rng = np.random.default_rng(n_interests * 10 + n_clusters)
    similarity = rng.uniform(-1, 1, (600, n_interests, n_clusters)).astype(np.float32)
    if ties:
        similarity = np.round(similarity * 2) / 2
    valid = rng.random((600, n_clusters)) < 0.7
    poisoned = np.where(valid[:, None, :], similarity, np.nan)

    assignment = match(torch.from_numpy(poisoned), torch.from_numpy(valid)).numpy()

    for row, matrix, exists in zip(assignment, similarity, valid, strict=True):
        matched = np.flatnonzero(row >= 0)
        assert len(set(row[matched])) == len(matched), "a cluster was given to two interests"
        assert exists[row[matched]].all(), "an interest was matched to a cluster that does not exist"
        total, pairs = scipy_total(matrix, exists)
        assert len(matched) == pairs
        assert matrix[matched, row[matched]].astype(np.float64).sum() == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("side", [3, 4, 5])
def test_equal_totals_resolve_by_position(side: int) -> None:
    """Whatever the common value: sums that rounded differently would pick one of the orders by chance."""
    value = torch.rand(300, 1, 1, generator=torch.Generator().manual_seed(side)).expand(-1, side, side)
    found = match(value, torch.ones(300, side, dtype=torch.bool))
    assert torch.equal(found, torch.arange(side).expand(300, -1))


def test_match_carries_no_gradient_and_leaves_its_input_alone() -> None:
    similarity = torch.rand(4, 3, 3, dtype=torch.float64, requires_grad=True)
    before, valid = similarity.detach().clone(), torch.tensor([True, True, False]).expand(4, -1)
    assert not match(similarity, valid).requires_grad
    assert torch.equal(similarity.detach(), before)


def test_match_of_no_samples_is_empty() -> None:
    assert match(torch.zeros(0, 4, 4), torch.zeros(0, 4, dtype=torch.bool)).shape == (0, 4)
    assert match(torch.zeros(0, 6, 6), torch.zeros(0, 6, dtype=torch.bool)).shape == (0, 6)


def test_match_says_what_is_wrong() -> None:
    with pytest.raises(InputError, match=r"valid: got shape \(2, 3\).*expected bool \(2, 4\)"):
        match(torch.zeros(2, 4, 4), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(InputError, match="similarity"):
        match(torch.zeros(2, 4, 4, dtype=torch.long), torch.ones(2, 4, dtype=torch.bool))


def planted(n_samples: int, groups: int, width: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(n_samples, dim, groups, generator=generator))[0].mT
    labels = torch.stack([torch.randperm(width, generator=generator) % groups for _ in range(n_samples)])
    noise = 0.05 * torch.randn(n_samples, width, dim, generator=generator)
    return basis.gather(1, labels[..., None].expand(-1, -1, dim)) + noise, labels


def test_clusters_find_planted_groups() -> None:
    targets, truth = planted(200, 4, 10, 16, seed=1)
    centroids, labels, cluster_valid = cluster_targets(targets, torch.ones(200, 10, dtype=torch.bool), 4, seed=3)
    same_truth = truth[:, :, None] == truth[:, None, :]
    assert (same_truth == (labels[:, :, None] == labels[:, None, :])).all()
    assert cluster_valid.all()
    assert torch.allclose(centroids.norm(dim=-1), torch.ones(200, 4), atol=1e-5)


def test_clusters_do_not_depend_on_the_batch_or_on_padding() -> None:
    targets = torch.randn(64, 10, 8, generator=torch.Generator().manual_seed(5))
    valid = torch.ones(64, 10, dtype=torch.bool)
    valid[::3, 7:] = False
    together = cluster_targets(targets, valid, 4, seed=9)
    padded = cluster_targets(
        torch.cat([targets, torch.randn(64, 5, 8)], 1),
        torch.cat([valid, torch.zeros(64, 5, dtype=torch.bool)], 1),
        4,
        seed=9,
    )
    assert (padded[1][:, :10] == together[1]).all() and (padded[1][:, 10:] == -1).all()
    for i in range(64):
        alone = cluster_targets(targets[i : i + 1], valid[i : i + 1], 4, seed=9)
        assert (alone[1][0] == together[1][i]).all()
        assert torch.allclose(alone[0][0], together[0][i], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.lists(st.integers(-1, 5), min_size=1, max_size=12), st.integers(0, 99))
def test_as_many_clusters_as_distinct_targets_allow(k: int, kinds: list[int], seed: int) -> None:
    """Kind -1 is a missing target; equal kinds are equal vectors."""
    corners = torch.nn.functional.normalize(torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)), dim=-1)
    kind = torch.tensor([kinds])
    centroids, labels, cluster_valid = cluster_targets(corners[kind.clamp_min(0)], kind >= 0, k, seed=seed)
    distinct = len({x for x in kinds if x >= 0})
    assert int(cluster_valid.sum()) == min(k, distinct)
    assert ((labels == -1) == (kind == -1)).all()
    assert torch.allclose(centroids.norm(dim=-1), cluster_valid.float(), atol=1e-5)
    used = labels[labels >= 0].unique().tolist()
    assert used == cluster_valid[0].nonzero()[:, 0].tolist()
    for value in set(kinds) - {-1}:
        assert len(labels[kind == value].unique()) == 1, "equal targets were put in different clusters"


def test_clusters_of_random_targets_never_lose_one() -> None:
    targets = torch.randn(2000, 10, 4, generator=torch.Generator().manual_seed(0))
    centroids, labels, cluster_valid = cluster_targets(targets, torch.ones(2000, 10, dtype=torch.bool), 5, iterations=3)
    assert cluster_valid.all()
    assert torch.isfinite(centroids).all()
    counts = torch.nn.functional.one_hot(labels, 5).sum(1)
    assert (counts > 0).all()


def test_cluster_bad_input() -> None:
    with pytest.raises(InputError, match="k and iterations: got 0"):
        cluster_targets(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), 0)
    with pytest.raises(InputError, match="expected bool"):
        cluster_targets(torch.zeros(1, 3, 2), torch.ones(1, 3), 2)
    _, labels, cluster_valid = cluster_targets(torch.zeros(1, 3, 2), torch.ones(1, 3, dtype=torch.bool), 2)
    assert not cluster_valid.any() and (labels == -1).all()
