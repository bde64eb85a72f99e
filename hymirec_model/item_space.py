"""The item space: text states and images → unit item vectors, by shared heads and a small residual an item.

It starts from the log: items that have events get a vector by what they are taken with (collaborative.py), ridge
regression fits the head to predict these vectors from text states, and an item's residual is what the text does not
explain, shrunk by the number of its events. So new items land where their text says, and well-known ones where the
log says. Training then tunes both on a recommendation loss (encoder_training.py).

Where items have an image vector a second head predicts, from text state and image together, what the first one leaves.
It is silent for items without an image, so these lie where their text says, as if nobody had an image.

Shapes: I items, h state size, g image vector size, d item dimensions.
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
Halves = npt.NDArray[np.float16]


class ItemSpace(nn.Module):
    """e_i = normalise(head(state_i) + image_head(state_i, image_i) + residual_i).

    Parameters
    ----------
    config : ItemSpaceConfig
    hidden : int
        h, length of a text state.
    items : int
        I, items that have a residual; items numbered higher (newer ones) have none.
    image : int, default=0
        g, length of an image vector; 0 where items have none.
    """

    def __init__(self, config: ItemSpaceConfig, hidden: int, items: int, image: int = 0) -> None:
        super().__init__()
        self.config, self.items, self.image = config, items, image
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(hidden))  # text states share a large mean
        self.head = nn.Linear(hidden, config.dim)
        self.residual = nn.Embedding(items, config.dim, sparse=True)
        nn.init.zeros_(self.residual.weight)
        if image:
            self.image_centre: Tensor
            self.register_buffer("image_centre", torch.zeros(image))
            self.image_head = nn.Linear(hidden + image, config.dim)
            nn.init.zeros_(self.image_head.weight)
            nn.init.zeros_(self.image_head.bias)

    def heads(self) -> list[nn.Parameter]:
        """Weights that all items share."""
        return [*self.head.parameters(), *(self.image_head.parameters() if self.image else ())]

    def forward(self, states: Tensor, items: Tensor, images: Tensor | None = None) -> Tensor:
        """Return unit vectors (n, d).

        Parameters
        ----------
        states : Tensor of shape (n, h)
            Text states.
        items : Tensor of shape (n,), long
            Item numbers.
        images : Tensor of shape (n, g), optional
            Unit image vectors, zero where an item has none.
        """
        vectors = self._content_part(states, images)
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

    def _content_part(self, states: Tensor, images: Tensor | None) -> Tensor:
        text = self._text_part(states)
        if images is None:
            return text
        image: Tensor = self.image_head(self._joined(states, images))
        return text + image * images.any(-1, keepdim=True)

    def _joined(self, states: Tensor, images: Tensor) -> Tensor:
        parts = (F.normalize(states - self.centre, dim=-1), F.normalize(images - self.image_centre, dim=-1))
        return torch.cat(parts, dim=-1)

    @torch.no_grad()
    def initialise(
        self,
        states: Floats,
        state_of_item: npt.NDArray[np.int64],
        histories: Histories,
        images: Halves | None = None,
    ) -> None:
        """Set heads and residuals from the log, without the windows that stage 2 is validated on.

        Parameters
        ----------
        states : float array of shape (texts, h)
            State of every distinct text.
        state_of_item : int array of shape (I,)
            Row of ``states`` of every item.
        histories : Histories
            Only what training may see.
        images : float16 array of shape (I, g), optional
            Unit image vectors, zero where an item has none.
        """
        histories = without_held_windows(histories, self.config.window, self.config.validation_users)
        counts = np.bincount(histories.items, minlength=self.items)
        vectors = collaborative_vectors(histories, self.items, self.config)
        # Of others nothing is known: were their zeros a target, all texts would be drawn towards them.
        known = np.flatnonzero(vectors.any(1))
        target = torch.from_numpy(vectors)
        self.centre.copy_(torch.from_numpy(states[state_of_item[known]].mean(0)))
        inputs = F.normalize(torch.from_numpy(states) - self.centre, dim=-1)
        _fit(self.head, inputs[state_of_item[known]], target[known])
        if images is not None:
            self._fit_images(torch.from_numpy(states), state_of_item, known, target, images)
        if self.config.residual:
            trust = torch.from_numpy(counts[known] / (counts[known] + self.config.shrinkage)).float()[:, None]
            own = torch.from_numpy(states)[state_of_item[known]]
            pictures = None if images is None else torch.from_numpy(images[known]).float()
            self.residual.weight[known] = trust * (target[known] - self._content_part(own, pictures))

    def _fit_images(
        self,
        states: Tensor,
        state_of_item: npt.NDArray[np.int64],
        known: npt.NDArray[np.int64],
        target: Tensor,
        images: Halves,
    ) -> None:
        known = known[images[known].any(1)]
        if not len(known):  # nobody has taken an item with an image: the image head stays silent
            return
        own, pictures = states[state_of_item[known]], torch.from_numpy(images[known]).float()
        self.image_centre.copy_(pictures.mean(0))
        _fit(self.image_head, self._joined(own, pictures), target[known] - self._text_part(own))

    @torch.inference_mode()
    def vectors(
        self,
        states: Floats,
        state_of_item: npt.NDArray[np.int64],
        batch: int = 16_384,
        images: Halves | None = None,
    ) -> Floats:
        """Vectors of all items, of shape (items, d), float32; ``images`` as in :meth:`initialise`."""
        device, parts = self.centre.device, []
        for start in range(0, len(state_of_item), batch):
            rows = state_of_item[start : start + batch]
            items = torch.arange(start, start + len(rows), device=device)
            own = None
            if images is not None:
                own = torch.from_numpy(images[start : start + batch]).to(device).float()
            parts.append(self(torch.from_numpy(states[rows]).to(device), items, own).cpu().numpy())
        return np.concatenate(parts)

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "item_space": dataclasses.asdict(self.config),
            "hidden": len(self.centre),
            "items": self.items,
        } | ({"image": self.image} if self.image else {})
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
            sizes = (settings["hidden"], settings["items"], settings.get("image", 0))
            space = cls(ItemSpaceConfig(**settings["item_space"]), *sizes)
            space.load_state_dict(load_file(folder / "model.safetensors"))
        return space.eval()


def _fit(head: nn.Linear, inputs: Tensor, target: Tensor) -> None:
    """Set a head by ridge regression.

    All items count alike: most are rare, and so is an item of which only the text is known. Weighted by counts, a new
    brand of milk would stand where the milk that everybody buys does.
    """
    design = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    ridge = 1e-2 * design.square().sum() / design.shape[1] * torch.eye(design.shape[1])
    solution = torch.linalg.solve(design.T @ design + ridge, design.T @ target)
    head.weight.copy_(solution[:-1].T)
    head.bias.copy_(solution[-1])
