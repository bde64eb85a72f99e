"""Groups of targets, and which interest answers for which group.

Shapes: B samples, W targets of a window, K interests, C clusters of targets, N = max(K, C), P = N!
permutations, F = N * N entries of a square, d dimensions. Everything runs on the device of its input and without
gradient: both functions only decide; the loss differentiates.

References
----------
HyMiRec (arXiv 2510.13738), disentangled multi-interest learning: cosine k-means over the window, one-to-one
matching.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hymirec_model.errors import InputError

# Up to 5! = 120 permutations are scored by one product of matrices; beyond, an exact solver solves each sample
ENUMERATED = 5
SAME = 1.0 - 1e-6  # cosine from which two targets count as one


def match(similarity: Tensor, valid: Tensor) -> Tensor:
    """One-to-one assignment of interests to clusters with the largest total similarity.

    As many pairs as possible are formed: min(K, number of valid clusters) a sample. Equal totals resolve by
    position, the same way every time.

    Parameters
    ----------
    similarity : Tensor of shape (B, K, C), floating point
        Similarity of every interest to every cluster, finite; only values at invalid clusters, which are
        ignored, may be NaN or infinite.
    valid : Tensor of shape (B, C), bool
        Clusters that exist.

    Returns
    -------
    Tensor of shape (B, K), int64
        Cluster of each interest, -1 for an interest that is left unmatched.

    Raises
    ------
    InputError
        If the shapes or types do not fit.
    """
    _check_match(similarity, valid)
    _, n_interests, n_clusters = similarity.shape
    side = max(n_interests, n_clusters)

    missing_BC = ~valid
    # A mask that is as wide as what it covers: broadcast over the interests it costs five times as much on a CPU.
    missing_BKC = torch.cat([missing_BC] * n_interests, 1).view_as(similarity)
    square_BNN = similarity.detach().to(torch.float64, copy=True).masked_fill_(missing_BKC, 0.0)
    if n_clusters > n_interests:  # else every order has a place for each valid cluster
        # Pairing with an invalid cluster while a valid one is left out must never pay.
        penalty_B11 = (2 * side + 1) * square_BNN.abs().amax(dim=(1, 2), keepdim=True) + 1.0
        square_BNN = square_BNN - missing_BKC * penalty_B11
    if n_clusters != n_interests:
        square_BNN = F.pad(square_BNN, (0, side - n_clusters, 0, side - n_interests))
        missing_BC = F.pad(missing_BC, (0, side - n_clusters), value=True)

    if side <= ENUMERATED:
        orders_PN, entries_FP = _orders(side, similarity.device)
        # Double precision holds these sums of single precision exactly but for tiny entries, so ties stay ties.
        totals_BP = square_BNN.flatten(1) @ entries_FP
        chosen_BN = orders_PN.index_select(0, totals_BP.argmax(1))
    else:
        chosen_BN = _solve(square_BNN)

    chosen_BK = chosen_BN[:, :n_interests]
    return chosen_BK.masked_fill_(missing_BC.gather(1, chosen_BK), -1)


@torch.no_grad()
def cluster_targets(
    targets: Tensor, valid: Tensor, k: int, seed: int = 0, iterations: int = 10
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine k-means of every sample's targets, all samples at once.

    A sample starts from one seeded position and then takes, k - 1 times, the target farthest from the centres
    so far, so its clusters do not depend on the batch it is in. A cluster that loses all its targets is
    re-seeded with the target farthest from its own centre. A sample with fewer than k distinct targets has
    fewer valid clusters.

    Parameters
    ----------
    targets : Tensor of shape (B, W, d)
        Target vectors of any length > 0; only their direction counts. A valid target of zero length is
        ignored.
    valid : Tensor of shape (B, W), bool
        Targets that exist.
    k : int
        Clusters wanted, >= 1.
    seed : int, default=0
        Chooses the first centre among the positions of the window.
    iterations : int, default=10
        Rounds of assignment and update, >= 1.

    Returns
    -------
    centroids : Tensor of shape (B, k, d), float32
        Unit vectors where `cluster_valid`, else zero (to be masked, never to be matched).
    labels : Tensor of shape (B, W), int64
        Cluster of each target, -1 for targets that do not exist.
    cluster_valid : Tensor of shape (B, k), bool
        Clusters that hold at least one target; they come first.

    Raises
    ------
    InputError
        If the shapes or types do not fit, or k < 1.
    """
    _check_targets(targets, valid, k, iterations)
    n_samples, width, _ = targets.shape
    with torch.autocast(targets.device.type, enabled=False):
        length_BW = torch.linalg.vector_norm(targets.float(), dim=-1)
        present_BW = valid & (length_BW > 0)
        unit_BWd = targets.float() / length_BW.masked_fill(~present_BW, 1.0)[..., None]
        unit_BWd = unit_BWd.masked_fill(~present_BW[..., None], 0.0)
        cosine_BWW = unit_BWd @ unit_BWd.mT
        twins_BWW = (cosine_BWW > SAME) & present_BW[:, :, None] & present_BW[:, None, :]

        start_Bk, open_Bk = _farthest_first(cosine_BWW, present_BW, k, seed)
        batch_B1 = torch.arange(n_samples, device=targets.device)[:, None]
        centroid_Bkd = unit_BWd[batch_B1, start_Bk] * open_Bk[..., None]
        number_k = torch.arange(k, device=targets.device)
        label_BW = torch.full((n_samples, width), -1, device=targets.device)
        for _ in range(iterations):
            fit_BWk = (unit_BWd @ centroid_Bkd.mT).masked_fill(~open_Bk[:, None, :], -torch.inf)
            before_BW = label_BW
            label_BW = fit_BWk.argmax(-1).masked_fill(~present_BW, -1)
            label_BW = _reseed_empty(label_BW, fit_BWk, twins_BWW, open_Bk)
            if torch.equal(label_BW, before_BW):
                break  # equal labels have equal means: every further round would find the same
            member_BWk = (label_BW[..., None] == number_k).float()
            sum_Bkd = member_BWk.mT @ unit_BWd
            norm_Bk = torch.linalg.vector_norm(sum_Bkd, dim=-1)
            # Opposite targets may cancel out: such a cluster keeps the centre it had.
            moved_Bk = norm_Bk > 1e-6
            mean_Bkd = sum_Bkd / norm_Bk.masked_fill(~moved_Bk, 1.0)[..., None]
            centroid_Bkd = torch.where(moved_Bk[..., None], mean_Bkd, centroid_Bkd)
        held_Bk = open_Bk & (label_BW[..., None] == number_k).any(1)
    return centroid_Bkd * held_Bk[..., None], label_BW, held_Bk


def _farthest_first(cosine_BWW: Tensor, present_BW: Tensor, k: int, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the first centres (B, k), and which of them are distinct targets (B, k)."""
    width = cosine_BWW.shape[1]
    # NumPy's stream has the same beginning for every width, so padding on the right changes nothing.
    lot_W = torch.as_tensor(np.random.default_rng(seed).random(width), dtype=torch.float32, device=cosine_BWW.device)
    first_B = lot_W.expand_as(present_BW).masked_fill(~present_BW, -1.0).argmax(1)
    chosen, is_open = [first_B], [present_BW.any(1)]
    nearest_BW = cosine_BWW.gather(2, first_B[:, None, None].expand(-1, width, 1)).squeeze(2)
    nearest_BW = nearest_BW.masked_fill(~present_BW, torch.inf)
    for _ in range(1, k):
        closeness_B, next_B = nearest_BW.min(1)
        chosen.append(next_B)
        is_open.append(closeness_B <= SAME)
        cosine_BW = cosine_BWW.gather(2, next_B[:, None, None].expand(-1, width, 1)).squeeze(2)
        nearest_BW = torch.maximum(nearest_BW, cosine_BW)
    return torch.stack(chosen, 1), torch.stack(is_open, 1)


def _reseed_empty(label_BW: Tensor, fit_BWk: Tensor, twins_BWW: Tensor, open_Bk: Tensor) -> Tensor:
    """Give every empty cluster the target (and its twins) that is farthest from its own centre."""
    number_k = torch.arange(open_Bk.shape[1], device=label_BW.device)
    empty_Bk = open_Bk & ~(label_BW[..., None] == number_k).any(1)
    for cluster in empty_Bk.any(0).nonzero()[:, 0].tolist():  # mostly none
        empty_B = empty_Bk[:, cluster]
        together_BWW = (label_BW[:, :, None] == label_BW[:, None, :]) & (label_BW >= 0)[:, None, :]
        # Only a cluster that keeps another, different target may give one away.
        spare_BW = (together_BWW.sum(2) > (together_BWW & twins_BWW).sum(2)) & (label_BW >= 0)
        own_BW = fit_BWk.gather(2, label_BW.clamp_min(0)[..., None]).squeeze(2)
        farthest_B = own_BW.masked_fill(~spare_BW, torch.inf).argmin(1)
        index_B11 = farthest_B[:, None, None].expand(-1, 1, label_BW.shape[1])
        moved_BW = (twins_BWW & together_BWW).gather(1, index_B11).squeeze(1)
        moved_BW &= (empty_B & spare_BW.any(1))[:, None]
        label_BW = label_BW.masked_fill(moved_BW, cluster)
    return label_BW


@cache
def _orders(side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """All permutations of range(side) in lexicographic order (P, N), and which entries of a square each sums (F, P)."""
    orders_PN = torch.tensor(list(permutations(range(side))))
    entries_FP = F.one_hot(orders_PN, side).flatten(1).T.double().contiguous()
    return orders_PN.to(device), entries_FP.to(device)


def _solve(square_BNN: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    solved = [linear_sum_assignment(cost, maximize=True)[1] for cost in square_BNN.cpu().numpy()]
    columns = np.stack(solved) if solved else np.zeros(square_BNN.shape[:2], np.int64)
    return torch.as_tensor(columns, dtype=torch.long, device=square_BNN.device)


def _check_match(similarity: Tensor, valid: Tensor) -> None:
    if similarity.ndim != 3 or not similarity.is_floating_point() or 0 in similarity.shape[1:]:
        raise InputError(
            f"similarity: got shape {tuple(similarity.shape)} {similarity.dtype}, "
            "expected floating point (samples, interests >= 1, clusters >= 1)."
        )
    expected = (similarity.shape[0], similarity.shape[2])
    if tuple(valid.shape) != expected or valid.dtype != torch.bool:
        raise InputError(f"valid: got shape {tuple(valid.shape)} {valid.dtype}, expected bool {expected}.")


def _check_targets(targets: Tensor, valid: Tensor, k: int, iterations: int) -> None:
    if targets.ndim != 3 or not targets.is_floating_point() or 0 in targets.shape[1:]:
        raise InputError(
            f"targets: got shape {tuple(targets.shape)} {targets.dtype}, "
            "expected floating point (samples, targets >= 1, dimensions >= 1)."
        )
    if valid.shape != targets.shape[:2] or valid.dtype != torch.bool:
        raise InputError(
            f"valid: got shape {tuple(valid.shape)} {valid.dtype}, expected bool {tuple(targets.shape[:2])}."
        )
    if k < 1 or iterations < 1:
        raise InputError(f"k and iterations: got {k} and {iterations}, both must be >= 1.")
