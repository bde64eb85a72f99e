"""Losses of both stages. All take scores or unit vectors, in float32, and give a scalar.

``bias_n`` is added to the scores of the negatives, see :mod:`hymirec_model.negatives`. Means are those over the targets
of all processes that train together, see :mod:`hymirec_model.shared_batch`.

Shapes: B users, W targets, K interests, n shared negatives, d dimensions.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from hymirec_model.matching import cluster_targets, match
from hymirec_model.shared_batch import mean_of_all


def masked_negatives(
    target_BWd: Tensor, target_ids_BW: Tensor, negative_nd: Tensor, negative_ids_n: Tensor, closest: float
) -> Tensor:
    """Mark the negatives that are no negatives: the target itself, or an item closer to it than ``closest`` (cosine).

    Whole vectors are compared. In an item space that is left as the log gives it, rare items lie close together by
    their last coordinate (:mod:`hymirec_model.tastes`), so a rare target is told from popular items, and not from
    most of the other rare ones. Told from those too, by their tastes, lists of groceries had an NDCG@10 of .290
    instead of .306 and fewer items; those of toys and films were as good.

    Returns
    -------
    Tensor of shape (B, W, n), bool
    """
    with torch.no_grad():
        twin_BWn = (target_BWd @ negative_nd.T) > closest
        return twin_BWn | (target_ids_BW[..., None] == negative_ids_n)


def info_nce(positive_BW: Tensor, negative_BWn: Tensor, false_BWn: Tensor, mask_BW: Tensor) -> Tensor:
    """Cross entropy of each target against the shared negatives, averaged over the targets in ``mask_BW``.

    ``negative_BWn`` may have one column of targets (B, 1, n) when the negatives' scores are the same for all of them.
    """
    negative_BWn = negative_BWn.masked_fill(false_BWn, -torch.inf)
    total_BW = torch.logaddexp(positive_BW, torch.logsumexp(negative_BWn, dim=-1))
    return mean_of_all((total_BW - positive_BW)[mask_BW])


def mixture_loss(
    interest_BKd: Tensor,
    target_BWd: Tensor,
    mask_BW: Tensor,
    negative_nd: Tensor,
    false_BWn: Tensor,
    scale: Tensor,
    bias_n: Tensor,
) -> Tensor:
    """InfoNCE on the score that retrieval uses: s(i) = logsumexp over k of scale · u_k · e_i."""
    positive_BW = torch.logsumexp(scale * (target_BWd @ interest_BKd.transpose(1, 2)), dim=-1)
    return info_nce(positive_BW, _any_interest(interest_BKd, negative_nd, scale, bias_n), false_BWn, mask_BW)


def dmil_loss(
    interest_BKd: Tensor,
    target_BWd: Tensor,
    mask_BW: Tensor,
    negative_nd: Tensor,
    false_BWn: Tensor,
    scale: Tensor,
    bias_n: Tensor,
    seed: int,
    *,
    negatives_of: Literal["own", "all"] = "own",
) -> Tensor:
    """Disentangled multi-interest learning (HyMiRec, arXiv 2510.13738): one interest answers for each target.

    The targets are clustered into K groups, the groups matched one to one to the interests (largest total cosine), and
    each target is trained against its group's interest. Clusters and matching carry no gradient. The negatives' scores
    are those of that interest (``own``, the paper), or of every interest of the user (``all``): an interest that scores
    higher than the others everywhere then costs their targets, too.
    """
    with torch.no_grad():
        centre_BKd, label_BW, valid_BK = cluster_targets(target_BWd, mask_BW, interest_BKd.shape[1], seed)
        cluster_of_BK = match(interest_BKd.float() @ centre_BKd.transpose(1, 2), valid_BK)
        owner_BWK = cluster_of_BK[:, None, :] == label_BW[:, :, None]
        owned_BW = mask_BW & owner_BWK.any(-1) & (label_BW >= 0)
        owner_BW = owner_BWK.long().argmax(-1)
    own_BWd = interest_BKd.gather(1, owner_BW[..., None].expand(-1, -1, interest_BKd.shape[2]))
    positive_BW = scale * (own_BWd * target_BWd).sum(-1)
    if negatives_of == "all":
        negative_BWn = _any_interest(interest_BKd, negative_nd, scale, bias_n)
    else:
        negative_BWn = scale * (own_BWd @ negative_nd.T) + bias_n
    return info_nce(positive_BW, negative_BWn, false_BWn, owned_BW)


def _any_interest(interest_BKd: Tensor, negative_nd: Tensor, scale: Tensor, bias_n: Tensor) -> Tensor:
    """Scores of the negatives by all interests of a user together, for any target: (B, 1, n)."""
    return torch.logsumexp(scale * (interest_BKd @ negative_nd.T), dim=1, keepdim=True) + bias_n


def usage(interest_BKd: Tensor, target_BWd: Tensor, mask_BW: Tensor, scale: Tensor) -> Tensor:
    """Share of the targets that each interest answers for, of shape (K,); sums to 1."""
    share_BWK = torch.softmax(scale * (target_BWd @ interest_BKd.transpose(1, 2)), dim=-1)
    return mean_of_all(share_BWK[mask_BW])


def balance_loss(usage_K: Tensor) -> Tensor:
    """How far the use of the interests is from even: log K - entropy, 0 when all are used alike."""
    unevenness: Tensor = math.log(len(usage_K)) + torch.special.xlogy(usage_K, usage_K).sum()
    return unevenness


def mean_pairwise_cosine(interest_BKd: Tensor) -> Tensor:
    """Mean cosine between different interests of a user; near 1 they have collapsed. 0 for K = 1."""
    count = interest_BKd.shape[1]
    if count == 1:
        return interest_BKd.new_zeros(())
    cosine_BKK = interest_BKd @ interest_BKd.transpose(1, 2)
    return mean_of_all(cosine_BKK.sum((1, 2)) - count) / (count * (count - 1))
