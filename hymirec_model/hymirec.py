"""HyMiRec's user side: item codes of a history → K interests (arXiv 2510.13738, stage 2).

Shapes: B users, N history positions, L codes an item, M coarse interests, K interests, d item dimensions.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from hymirec_model.config import RecommenderConfig
from hymirec_model.errors import InputError
from hymirec_model.folders import reading
from hymirec_model.habits import NONE, Habits
from hymirec_model.light_recommender import LightRecommender
from hymirec_model.llm_recommender import LLMRecommender, empty_backbone
from hymirec_model.popularity_shift import NO_SHIFT, Shift
from hymirec_model.user_side import LOG_SCALE, START_SCALE, UserSide


class HyMiRec(nn.Module):
    """Light recommender and LLM recommender.

    Parameters
    ----------
    config : RecommenderConfig
    dim : int
        d, length of an item vector.
    backbone : PreTrainedModel
        See :func:`hymirec_model.llm_recommender.load_backbone`.
    """

    def __init__(self, config: RecommenderConfig, dim: int, backbone: PreTrainedModel) -> None:
        super().__init__()
        self.config, self.dim = config, dim
        self.light = LightRecommender(dim, config.coarse_interests, config.light_width)
        self.llm = LLMRecommender(
            backbone, dim, config.coarse_interests, config.recent, config.interests, refine=config.refine
        )
        self.log_scale = nn.Parameter(torch.tensor(START_SCALE).log())
        self.habit_factors: Tensor
        self.register_buffer("habit_factors", torch.zeros(len(NONE)))
        self.shift_factors: Tensor
        self.register_buffer("shift_factors", torch.zeros(len(NO_SHIFT)))

    @property
    def scale(self) -> Tensor:
        """Factor on the cosines in losses and in the merge at retrieval."""
        return self.log_scale.clamp(*LOG_SCALE).exp()

    @property
    def habits(self) -> Habits:
        """How much users' own items count at retrieval."""
        return Habits(*self.habit_factors.tolist())

    def set_habits(self, habits: Habits) -> None:
        """Let users' own items count so much."""
        self.habit_factors.copy_(torch.tensor(habits))

    @property
    def shift(self) -> Shift:
        """How much counts at retrieval what is popular then."""
        return Shift(*self.shift_factors.tolist())

    def set_shift(self, shift: Shift) -> None:
        """Let what is popular at retrieval count so much."""
        self.shift_factors.copy_(torch.tensor(shift))

    @torch.no_grad()
    def start_from(self, user_side: UserSide) -> None:
        """Let every coarse interest start as the one interest of stage 1.

        Raises
        ------
        InputError
            If that is of another width or for other item vectors.
        """
        self.light.start_from(user_side.light)
        self.log_scale.copy_(user_side.log_scale)

    def forward(self, history_BNd: Tensor, ages_BN: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        """Return coarse interests (B, M, d) and interests (B, K, d), unit vectors.

        Parameters
        ----------
        history_BNd : Tensor of shape (B, N, d)
            Unit item vectors, decoded from codes; oldest → newest, padded at the front.
        ages_BN : Tensor of shape (B, N), long
        mask_BN : Tensor of shape (B, N), bool

        Raises
        ------
        InputError
            If the vectors' length is not the model's.
        """
        if history_BNd.shape[-1] != self.dim:
            raise InputError(
                f"history: seen vectors of length {history_BNd.shape[-1]}; allowed: {self.dim}, the model's"
            )
        coarse_BMd = self.light(history_BNd, ages_BN, mask_BN)
        interest_BKd = self.llm(coarse_BMd, history_BNd, ages_BN, mask_BN)
        return coarse_BMd, self.light.or_newcomer(interest_BKd, mask_BN)

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        backbone = {key: value for key, value in self.llm.backbone.config.to_diff_dict().items() if value is not None}
        backbone.pop("_name_or_path", None)
        settings: dict[str, Any] = {
            "recommender": dataclasses.asdict(self.config),
            "dim": self.dim,
            "backbone": backbone | {"model_type": self.llm.backbone.config.model_type},
        }
        (folder / "config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> HyMiRec:
        """Read a model that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are missing, damaged or not those of a recommender.
        """
        with reading(folder, "a recommender"):
            settings = json.loads((folder / "config.json").read_text())
            model = cls(
                RecommenderConfig(**settings["recommender"]),
                settings["dim"],
                empty_backbone(settings["backbone"]),
            )
            model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
