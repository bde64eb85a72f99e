"""The LLM recommender: [coarse interests][recent items][K queries] → K interests (HyMiRec, arXiv 2510.13738, stage 2).

Shapes: B users, M coarse interests, R recent items, K interests, T = M + R + K tokens, d item dimensions, h hidden.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import logging as transformers_logging

from hymirec_model.folders import reading
from hymirec_model.histories import AGE_BUCKETS
from hymirec_model.light_recommender import CORRECTION
from hymirec_model.weights import DATA_ONLY, pretrained_config

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def load_backbone(source: str, layers: int) -> PreTrainedModel:
    """Load a pretrained causal LM's transformer with its first ``layers`` layers (0 = all), without word embeddings.

    Parameters
    ----------
    source : str
        Folder or hub id, see :func:`hymirec_model.weights.resolve`.

    Raises
    ------
    InputError
        If the model has fewer layers than asked for.
    """
    config = pretrained_config(source, layers)
    with reading(Path(source), "a language model"):
        return _without_words(AutoModel.from_pretrained(source, config=config, dtype=torch.float32, **DATA_ONLY))


def empty_backbone(config: dict[str, Any]) -> PreTrainedModel:
    """Build the transformer of a saved ``config`` for weights that are loaded afterwards."""
    model = AutoModel.from_config(AutoConfig.for_model(**config))  # type: ignore[no-untyped-call]
    return _without_words(model)


def _without_words(backbone: PreTrainedModel) -> PreTrainedModel:
    backbone.set_input_embeddings(nn.Embedding(1, backbone.config.hidden_size))
    backbone.get_input_embeddings().requires_grad_(False)
    return backbone


class LLMRecommender(nn.Module):
    """A pretrained transformer reads interests and items instead of words.

    Parameters
    ----------
    backbone : PreTrainedModel
        A causal LM's transformer that takes ``inputs_embeds``.
    dim : int
        d, length of an item vector.
    coarse, recent, interests : int
        M, R and K.
    refine : bool
        Interests are learnt mixtures of the coarse ones plus the LLM's correction, which starts at zero; False: the
        LLM's output alone, as in the paper.
    """

    def __init__(
        self, backbone: PreTrainedModel, dim: int, coarse: int, recent: int, interests: int, *, refine: bool
    ) -> None:
        super().__init__()
        hidden = backbone.config.hidden_size
        self.recent = recent
        self.backbone = backbone
        self.read = nn.Linear(dim, hidden)
        self.kind = nn.Embedding(2, hidden)  # coarse interest, recent item
        self.age = nn.Embedding(AGE_BUCKETS, hidden)
        self.queries = nn.Parameter(torch.randn(interests, hidden))
        self.write = nn.Linear(hidden, dim)
        # Word embeddings of pretrained LMs are small; tokens of another scale would be strangers to the first layer.
        for part in (self.read, self.kind, self.age):
            nn.init.normal_(part.weight, std=0.02)
        nn.init.normal_(self.queries, std=0.1)
        self.mixing = nn.Parameter(_spread(interests, coarse)) if refine else None
        if refine:
            nn.init.zeros_(self.write.weight)
            nn.init.zeros_(self.write.bias)

    def forward(self, coarse_BMd: Tensor, history_BNd: Tensor, ages_BN: Tensor, mask_BN: Tensor) -> Tensor:
        """Return interests of shape (B, K, d), unit vectors.

        Parameters
        ----------
        coarse_BMd : Tensor of shape (B, M, d)
        history_BNd, ages_BN, mask_BN
            As in :class:`hymirec_model.light_recommender.LightRecommender`; the last R columns are read.
        """
        if self.mixing is None:
            return F.normalize(self._write(coarse_BMd, history_BNd, ages_BN, mask_BN), dim=-1)
        interest_BKd = (self.mixing @ coarse_BMd).float()
        # A correction of nothing, as at the start and where training undid it, is only computed for its gradient.
        if torch.is_grad_enabled() or self.write.weight.any() or self.write.bias.any():
            interest_BKd = CORRECTION * self._write(coarse_BMd, history_BNd, ages_BN, mask_BN) + interest_BKd
        return F.normalize(interest_BKd, dim=-1)

    def _write(self, coarse_BMd: Tensor, history_BNd: Tensor, ages_BN: Tensor, mask_BN: Tensor) -> Tensor:
        """What the LLM answers to each of K queries, of shape (B, K, d)."""
        batch, coarse, _ = coarse_BMd.shape
        count = len(self.queries)
        recent_BRd, ages_BR, mask_BR = (x[:, -self.recent :] for x in (history_BNd, ages_BN, mask_BN))
        tokens_BTh = torch.cat(
            [
                self.read(coarse_BMd.to(recent_BRd.dtype)) + self.kind.weight[0],
                self.read(recent_BRd) + self.kind.weight[1] + self.age(ages_BR),
                self.queries.to(recent_BRd.dtype).expand(batch, -1, -1),
            ],
            dim=1,
        )
        always = mask_BR.new_ones(batch, 1)
        mask_BT = torch.cat([always.expand(-1, coarse), mask_BR, always.expand(-1, count)], dim=1)
        position_BT = (mask_BT.long().cumsum(1) - 1).clamp_min(0)
        output_BTh = self.backbone(
            inputs_embeds=tokens_BTh, attention_mask=mask_BT.long(), position_ids=position_BT, use_cache=False
        ).last_hidden_state
        written: Tensor = self.write(output_BTh[:, -count:])
        return written.float()


def _spread(interests: int, coarse: int) -> Tensor:
    """Mixing weights (K, M) at the start: each interest stands on its share of the coarse interests."""
    owner_M = torch.arange(coarse) % interests
    weight_KM = (owner_M == torch.arange(interests)[:, None]).float()
    missing_K = weight_KM.sum(1) == 0
    weight_KM[missing_K] = 1.0
    return weight_KM / weight_KM.sum(1, keepdim=True)
