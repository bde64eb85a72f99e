"""The user side of stage 1: one interest a user, trained together with the item space.

Shapes: B users, N history positions, W targets, n negatives, d item dimensions.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hymirec_model.folders import reading
from hymirec_model.histories import Batch
from hymirec_model.light_recommender import LightRecommender
from hymirec_model.losses import masked_negatives, mixture_loss
from hymirec_model.negatives import Negatives

LOG_SCALE = (0.0, 4.6051702)  # log 1 … log 100, as RED-Rec (arXiv 2510.14788) clamps it
START_SCALE = 20.0
TWIN_COSINE = 0.98  # a negative closer to the target than this is masked (RED-Rec)
FILE = "user_side.safetensors"


class UserSide(nn.Module):
    """One user vector a history, and the scale of its cosines.

    Parameters
    ----------
    dim : int
        d, length of an item vector.
    width : int, default=128
        Of the light recommender.
    recency : float, default=0
        A user's r-th newest event weighs r ** -recency before training.
    """

    def __init__(self, dim: int, width: int = 128, recency: float = 0.0) -> None:
        super().__init__()
        self.light = LightRecommender(dim, interests=1, width=width)
        self.light.set_recency(recency)
        self.log_scale = nn.Parameter(torch.tensor(START_SCALE).log())

    def loss(self, batch: Batch, vectors: Tensor, places: Tensor, negatives: Negatives) -> Tensor:
        """InfoNCE of a batch; ``vectors[places]`` are those of history, targets and negatives, one after the other."""
        history, targets = batch.items_BN.numel(), batch.targets_BW.numel()
        history_BNd = vectors[places[:history]].view(*batch.items_BN.shape, -1)
        target_BWd = vectors[places[history : history + targets]].view(*batch.targets_BW.shape, -1)
        negative_nd = vectors[places[history + targets :]]
        user_B1d = self.light(history_BNd, batch.ages_BN, batch.mask_BN)
        false_BWn = masked_negatives(target_BWd, batch.targets_BW, negative_nd, negatives.ids, TWIN_COSINE)
        if negatives.owner is not None:
            row_B = torch.arange(len(target_BWd), device=negatives.ids.device)
            false_BWn = false_BWn | (negatives.owner == row_B[:, None])[:, None]
        scale = self.log_scale.clamp(*LOG_SCALE).exp()
        return mixture_loss(user_B1d, target_BWd, batch.target_mask_BW, negative_nd, false_BWn, scale, negatives.bias)

    def save(self, folder: Path) -> None:
        """Write user_side.safetensors into an existing folder."""
        save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> UserSide:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are missing, damaged or not those of a user side.
        """
        with reading(folder, "a user side"):
            weights = load_file(folder / FILE)
            width, dim = weights["light.read.weight"].shape
            side = cls(dim, width)
            side.load_state_dict(weights)
        return side.eval()
