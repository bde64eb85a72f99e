"""The item space: text states → unit item vectors, by a shared head and a small residual an item.

It starts from the log: truncated SVD of the user × item counts gives a vector to every item with events, ridge
regression fits the head to predict these vectors from text states, and an item's residual is what the text does not
explain, shrunk by the number of its events. So new items land where their text says, and well-known ones where the
log says. Training then tunes both on a recommendation loss (encoder_training.py).

The length of an SVD vector tells how much of the log an item explains, and unit vectors would lose it. So the last
coordinate holds what is missing to length 1: the inner product with a user vector that is zero there is that of the
SVD vectors (Bachrach et al. 2014, doi:10.1145/2645710.2645741, section 3).

Shapes: I items, h state size, d item dimensions.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hymirec_model.config import ItemSpaceConfig
from hymirec_model.errors import require
from hymirec_model.histories import Histories

Floats = npt.NDArray[np.float32]
# Measured on The Complete Journey, recall@50 of the mean of a household's items, d = 128: exponents of 0.15, 0.3, 0.5
# gave .221, .180, .138; flattened lengths (1, 0.7, 0.5, 0.3) gave .221, .235, .235, .200.
ITEM_EXPONENT = 0.15
LENGTH_EXPONENT = 0.6


class ItemSpace(nn.Module):
    """e_i = normalise(head(state_i) + residual_i).

    Parameters
    ----------
    config : ItemSpaceConfig
    hidden : int
        h, length of a text state.
    items : int
        I, items that have a residual; items numbered higher (newer ones) have none.
    """

    def __init__(self, config: ItemSpaceConfig, hidden: int, items: int) -> None:
        super().__init__()
        self.config, self.items = config, items
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(hidden))  # text states share a large mean
        self.head = nn.Linear(hidden, config.dim)
        self.residual = nn.Embedding(items, config.dim, sparse=True)
        nn.init.zeros_(self.residual.weight)

    def forward(self, states: Tensor, items: Tensor) -> Tensor:
        """Return unit vectors (n, d).

        Parameters
        ----------
        states : Tensor of shape (n, h)
            Text states.
        items : Tensor of shape (n,), long
            Item numbers.
        """
        vectors = self._text_part(states)
        if self.config.residual:
            known = items < self.items
            vectors = vectors + self.residual(torch.where(known, items, 0)) * known[:, None]
        return F.normalize(vectors, dim=-1)

    def from_text(self, states: Tensor) -> Tensor:
        """Unit vectors (n, d) of items of which only the text is known."""
        return F.normalize(self._text_part(states), dim=-1)

    def _text_part(self, states: Tensor) -> Tensor:
        text: Tensor = self.head(F.normalize(states - self.centre, dim=-1))
        return text

    @torch.no_grad()
    def initialise(self, states: Floats, state_of_item: npt.NDArray[np.int64], histories: Histories) -> None:
        """Set head and residuals from the log.

        Parameters
        ----------
        states : float array of shape (texts, h)
            State of every distinct text.
        state_of_item : int array of shape (I,)
            Row of ``states`` of every item.
        histories : Histories
            Only what training may see.
        """
        counts = np.bincount(histories.items, minlength=self.items)
        known = np.flatnonzero(counts)
        self.centre.copy_(torch.from_numpy(states[state_of_item[known]].mean(0)))
        target = torch.from_numpy(collaborative_vectors(histories, self.items, self.config.dim, self.config.seed))
        inputs = F.normalize(torch.from_numpy(states) - self.centre, dim=-1)
        text = inputs[state_of_item[known]]
        # All items count alike: most are rare, and so is an item of which only the text is known. Weighted by counts,
        # a new brand of milk would stand where the milk that everybody buys does.
        design = torch.cat([text, torch.ones(len(text), 1)], 1)
        ridge = 1e-2 * design.square().sum() / design.shape[1] * torch.eye(design.shape[1])
        solution = torch.linalg.solve(design.T @ design + ridge, design.T @ target[known])
        self.head.weight.copy_(solution[:-1].T)
        self.head.bias.copy_(solution[-1])
        if self.config.residual:
            trust = torch.from_numpy(counts[known] / (counts[known] + self.config.shrinkage)).float()[:, None]
            self.residual.weight[known] = trust * (
                target[known] - self._text_part(torch.from_numpy(states)[state_of_item[known]])
            )

    @torch.inference_mode()
    def vectors(self, states: Floats, state_of_item: npt.NDArray[np.int64], batch: int = 16_384) -> Floats:
        """Vectors of all items, of shape (items, d), float32."""
        device, parts = self.centre.device, []
        for start in range(0, len(state_of_item), batch):
            rows = state_of_item[start : start + batch]
            items = torch.arange(start, start + len(rows), device=device)
            parts.append(self(torch.from_numpy(states[rows]).to(device), items).cpu().numpy())
        return np.concatenate(parts)

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "item_space": dataclasses.asdict(self.config),
            "hidden": len(self.centre),
            "items": self.items,
        }
        (folder / "config.json").write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n")
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / "model.safetensors")

    @classmethod
    def load(cls, folder: Path) -> ItemSpace:
        """Read an item space that :meth:`save` wrote."""
        settings = json.loads((folder / "config.json").read_text())
        space = cls(ItemSpaceConfig(**settings["item_space"]), settings["hidden"], settings["items"])
        space.load_state_dict(load_file(folder / "model.safetensors"))
        return space.eval()


def collaborative_vectors(histories: Histories, items: int, dim: int, seed: int) -> Floats:
    """Unit vectors (items, dim) from a truncated SVD of the user × item log-counts; zero for items without events.

    Counts are divided by the root of the user's sum, so that busy users do not rule the space, and by a small power
    of the item's, so that popular items do not. Lengths are flattened by a power too, and the last coordinate makes
    them 1.

    Raises
    ------
    InputError
        If there are no users.
    """
    require(len(histories) > 0, "histories: seen 0 users; allowed: 1 or more")
    ones = np.ones(len(histories.items), np.float32)
    counts = sp.csr_matrix((ones, (histories.users, histories.items)), shape=(len(histories), items))
    counts.sum_duplicates()
    counts.data = np.log1p(counts.data)
    by_user, by_item = (np.maximum(np.asarray(counts.sum(axis)).ravel(), 1e-9) for axis in (1, 0))
    scaled = sp.diags_array(by_user**-0.5) @ counts @ sp.diags_array(by_item**-ITEM_EXPONENT)
    vectors = np.zeros((items, dim), np.float32)
    rank = min(dim - 1, min(scaled.shape) - 1)
    if rank > 0:
        start = np.random.default_rng(seed).standard_normal(min(scaled.shape)).astype(np.float32)
        _, values, right = sla.svds(scaled.astype(np.float32), k=rank, v0=start)
        right = right[np.argsort(-values)]
        # SVD leaves the signs open; fixing them makes reruns equal.
        right *= np.sign(right[np.arange(rank), np.abs(right).argmax(1)])[:, None]
        vectors[:, :rank] = right.T
    length = np.linalg.norm(vectors, axis=1)
    flat = length**LENGTH_EXPONENT
    longest = np.quantile(flat[length > 0], 0.9995) if length.any() else 1.0
    wanted = np.minimum(flat / longest, 1)
    vectors *= np.divide(wanted, length, out=np.zeros_like(length), where=length > 0)[:, None]
    has_events = np.bincount(histories.items, minlength=items) > 0
    vectors[:, -1] = np.where(has_events, np.sqrt(1 - wanted**2), 0)
    return vectors
