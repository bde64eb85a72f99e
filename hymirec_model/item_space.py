"""The item space: text states → unit item vectors, by a shared head and a small residual an item.

It starts from the log: items that have events get a vector by what they are taken with (collaborative.py), ridge
regression fits the head to predict these vectors from text states, and an item's residual is what the text does not
explain, shrunk by the number of its events. So new items land where their text says, and well-known ones where the
log says. Training then tunes both on a recommendation loss (encoder_training.py).

Shapes: I items, h state size, d item dimensions.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hymirec_model.collaborative import collaborative_vectors
from hymirec_model.config import ItemSpaceConfig
from hymirec_model.folders import reading
from hymirec_model.histories import Histories
from hymirec_model.window_sampler import without_held_windows

Floats = npt.NDArray[np.float32]


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
        """Set head and residuals from the log, without the windows that stage 2 is validated on.

        Parameters
        ----------
        states : float array of shape (texts, h)
            State of every distinct text.
        state_of_item : int array of shape (I,)
            Row of ``states`` of every item.
        histories : Histories
            Only what training may see.
        """
        histories = without_held_windows(histories, self.config.window, self.config.validation_users)
        counts = np.bincount(histories.items, minlength=self.items)
        known = np.flatnonzero(counts)
        self.centre.copy_(torch.from_numpy(states[state_of_item[known]].mean(0)))
        target = torch.from_numpy(collaborative_vectors(histories, self.items, self.config))
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
        """Read an item space that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are missing, damaged or not those of an item space.
        """
        with reading(folder, "an item space"):
            settings = json.loads((folder / "config.json").read_text())
            space = cls(ItemSpaceConfig(**settings["item_space"]), settings["hidden"], settings["items"])
            space.load_state_dict(load_file(folder / "model.safetensors"))
        return space.eval()
