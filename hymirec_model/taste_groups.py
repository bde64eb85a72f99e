"""Groups of a history's items that lie close together: what one person's different tastes are.

A weighted cosine k-means of each user's own events, all users of a batch at once, linear in the length of the history.
Clusters of a user's own actions as a user's interests: PinnerSage (Pal et al. 2020, arXiv 2007.03634).

Shapes: B users, N history positions, M groups, d item dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ITERATIONS = 6


@torch.no_grad()
def taste_groups(directions_BNd: Tensor, weight_BN: Tensor, mask_BN: Tensor, groups: int) -> Tensor:
    """Which group each event belongs to; without a gradient and without chance.

    The first group starts at the event that weighs most, each further one where what weighs much lies far from the
    groups there are. Equal events never part, so a history of few distinct items has fewer groups than M: these then
    come again in the places that are left, each about as often as the others.

    Parameters
    ----------
    directions_BNd : Tensor of shape (B, N, d)
        Unit vectors.
    weight_BN : Tensor of shape (B, N)
        How much an event counts; 0 where ``mask_BN`` is False.
    mask_BN : Tensor of shape (B, N), bool
    groups : int
        M.

    Returns
    -------
    Tensor of shape (B, N, M), float32
        1 where an event is in the place's group, else 0.
    """
    with torch.autocast(directions_BNd.device.type, enabled=False):  # centres that are near would become one
        return _groups(directions_BNd.float(), weight_BN.float() * mask_BN, mask_BN, groups)


def _groups(directions_BNd: Tensor, weight_BN: Tensor, mask_BN: Tensor, groups: int) -> Tensor:
    users_B = torch.arange(len(directions_BNd), device=directions_BNd.device)
    centre_Bd = directions_BNd[users_B, weight_BN.argmax(1)]
    centres, nearest_BN = [centre_Bd], (directions_BNd @ centre_Bd[..., None])[..., 0]
    for _ in range(1, groups):
        farthest_B = ((1 - nearest_BN) * weight_BN.sqrt()).masked_fill(~mask_BN, -1.0).argmax(1)
        centre_Bd = directions_BNd[users_B, farthest_B]
        centres.append(centre_Bd)
        nearest_BN = torch.maximum(nearest_BN, (directions_BNd @ centre_Bd[..., None])[..., 0])
    centre_BMd = torch.stack(centres, 1)
    member_BNM = _members(directions_BNd, centre_BMd, mask_BN)
    for _ in range(ITERATIONS):
        sum_BMd = (member_BNM * weight_BN[..., None]).mT @ directions_BNd
        length_BM1 = torch.linalg.vector_norm(sum_BMd, dim=-1, keepdim=True)
        # A group that lost its events, or whose events cancel out, keeps its centre.
        centre_BMd = torch.where(length_BM1 > 1e-9, sum_BMd / length_BM1.clamp_min(1e-9), centre_BMd)
        member_BNM = _members(directions_BNd, centre_BMd, mask_BN)
    held_BM = member_BNM.any(1)
    first_BM = held_BM.int().argsort(dim=1, descending=True, stable=True)
    again_BM = torch.arange(groups, device=held_BM.device) % held_BM.sum(1, keepdim=True).clamp_min(1)
    return member_BNM.gather(2, first_BM.gather(1, again_BM)[:, None].expand_as(member_BNM))


def _members(directions_BNd: Tensor, centre_BMd: Tensor, mask_BN: Tensor) -> Tensor:
    nearest_BN = (directions_BNd @ centre_BMd.mT).argmax(-1)
    return F.one_hot(nearest_BN, centre_BMd.shape[1]).float() * mask_BN[..., None]
