"""The residual codebook: an item vector as L bytes.

Shapes: n vectors, G generations, L bytes (layers) an item, k entries a layer, d dimensions.
A frozen table is a generation. New items that old entries serve badly get a new generation, fitted on them
alone, so no stored code ever changes: an item is (generation, codes), and decoding looks up row generation *
L * k + layer * k + code.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from hymirec_model.beam_search import beam_search
from hymirec_model.code_table import CodeTable
from hymirec_model.codebook_fit import (
    dequantise,
    fit_additive,
    fit_projection,
    project,
    quantise,
)
from hymirec_model.config import CodebookConfig
from hymirec_model.errors import InputError
from hymirec_model.folders import reading
from hymirec_model.vectors import check_vectors, check_weights, distinct_sample

Floats = npt.NDArray[np.floating]
Codes = npt.NDArray[np.uint8]
MAX_GENERATIONS = 256  # a generation is stored in one byte


class ResidualCodebook:
    """Residual quantiser for unit vectors that maximises the cosine (HyMiRec's codebook).

    Parameters
    ----------
    config : CodebookConfig
        `form="additive"` (default) sums one entry a layer, encodes by a beam search and refits the layers
        jointly. `form="projection"` is the paper's: L / 2 greedy
        projections on balanced k-means directions, and their coefficients in the other L / 2 bytes.

    Attributes
    ----------
    table_ : float32 array of shape (G, layers, k, d)
        Entries; `layers` is L, or L / 2 for `form="projection"`.
    coefficient_range_ : float32 array of shape (G, layers, 2)
        Least and largest coefficient of a layer; of shape (G, 0, 2) for `form="additive"`.
    reports_ : list of dict
        One a generation: vectors read, and their cosine.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(600, 16)).astype(np.float32)
    >>> vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    >>> book = ResidualCodebook(CodebookConfig(layers=4, size=32)).fit(vectors)
    >>> codes = book.encode(vectors)
    >>> codes.shape, codes.dtype
    ((600, 4), dtype('uint8'))
    >>> bool((book.decode(codes) * vectors).sum(axis=1).mean() > 0.7)
    True

    References
    ----------
    HyMiRec, arXiv 2510.13738: "residual codebook based on cosine similarity".
    """

    table_: npt.NDArray[np.float32]
    coefficient_range_: npt.NDArray[np.float32]
    reports_: list[dict[str, int | float]]

    def __init__(self, config: CodebookConfig) -> None:
        if config.form == "projection" and config.layers % 2:
            raise InputError(
                f"CodebookConfig.layers is {config.layers}; form 'projection' needs an even number: "
                "half of the bytes hold codes, half their coefficients."
            )
        self.config = config

    @property
    def dim_(self) -> int:
        """Dimensions of the vectors the book was fitted on."""
        return int(self._fitted().shape[3])

    @property
    def generations_(self) -> int:
        """Number of generations."""
        return int(self._fitted().shape[0])

    def fit(self, vectors: Floats, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit generation 0, forgetting any other.

        Parameters
        ----------
        vectors : array of shape (n, d)
            Unit vectors, finite; at least `config.size` of them distinct. At most `config.fit_sample`
            distinct ones are read, and the order of the rows does not matter.
        sample_weight : array of shape (n,), optional
            How often each vector will be decoded, >= 0: the book serves those best that come most often. All alike by
            default.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a vector is not finite, not of unit length, or too few are distinct; or if a weight is not allowed.
        """
        table, ranges, report = self._fit_one(vectors, sample_weight)
        self.table_, self.coefficient_range_, self.reports_ = table[None], ranges[None], [report]
        return self

    def partial_fit(self, vectors: Floats, sample_weight: npt.ArrayLike | None = None) -> Self:
        """Fit a new generation on new vectors; earlier generations, and every code made with them, stay as
        they are.

        Parameters
        ----------
        vectors, sample_weight
            As for `fit`. On a book without generations this is `fit`.

        Returns
        -------
        self

        Raises
        ------
        InputError
            As `fit`; or if the dimension differs, or 256 generations exist.
        """
        if not hasattr(self, "table_"):
            return self.fit(vectors, sample_weight)
        if self.generations_ >= MAX_GENERATIONS:
            raise InputError(
                f"the book has {self.generations_} generations, allowed {MAX_GENERATIONS}: fit a new book."
            )
        table, ranges, report = self._fit_one(self._checked(vectors), sample_weight)
        self.table_ = np.concatenate([self.table_, table[None]])
        self.coefficient_range_ = np.concatenate([self.coefficient_range_, ranges[None]])
        self.reports_ = [*self.reports_, report]
        return self

    def encode(self, vectors: Floats, generation: int = -1) -> Codes:
        """Codes of one generation.

        Parameters
        ----------
        vectors : array of shape (n, d)
            Unit vectors, finite.
        generation : int, default=-1
            Which one; -1 is the newest.

        Returns
        -------
        uint8 array of shape (n, L)
            A vector's codes do not depend on the vectors beside it.
        """
        generation = self._checked_generation(generation)
        rows = torch.from_numpy(self._checked(vectors))
        table = torch.from_numpy(self.table_[generation])
        if self.config.form == "additive":
            codes = beam_search(rows, table, self.config.beam).codes[:, 0]
            return codes.to(torch.uint8).numpy()
        picked, levels = [], []
        for directions, bounds in zip(table, torch.from_numpy(self.coefficient_range_[generation]), strict=True):
            code, along = project(rows, directions)
            picked.append(code)
            levels.append(quantise(along, bounds))
            rows = rows - dequantise(levels[-1], bounds)[:, None] * directions[code]
        return torch.stack([*picked, *levels], dim=1).to(torch.uint8).numpy()

    def encode_best(self, vectors: Floats) -> tuple[npt.NDArray[np.uint8], Codes]:
        """Codes of whichever generation gives each vector the larger cosine (the older one when equal).

        Returns
        -------
        generations : uint8 array of shape (n,)
        codes : uint8 array of shape (n, L)
        """
        rows = self._checked(vectors)
        best = np.full(len(rows), -np.inf, np.float32)
        generations = np.zeros(len(rows), np.uint8)
        codes = np.zeros((len(rows), self.config.layers), np.uint8)
        for generation in range(self.generations_):
            trial = self.encode(rows, generation)
            cosine = (self.decode(trial, generation) * rows).sum(1)
            better = cosine > best
            best[better], generations[better], codes[better] = cosine[better], generation, trial[better]
        return generations, codes

    def decode(self, codes: Codes, generation: npt.ArrayLike | None = None) -> npt.NDArray[np.float32]:
        """Unit vectors of codes.

        Parameters
        ----------
        codes : integer array of shape (n, L)
        generation : int or integer array of shape (n,), optional
            May be left out only while the book has one generation.

        Returns
        -------
        float32 array of shape (n, d)

        Raises
        ------
        InputError
            If a shape, a code or a generation is not one of this book's.
        """
        table = self.to_module()
        rows, which = table.checked(np.asarray(codes), generation)
        with torch.inference_mode():
            return np.asarray(table(torch.from_numpy(rows), torch.from_numpy(which)))

    def to_module(self) -> CodeTable:
        """The decoder as a module without parameters, for a model that reads codes on its own device."""
        return CodeTable(torch.from_numpy(self._fitted().copy()), torch.from_numpy(self.coefficient_range_))

    def save(self, folder: Path) -> None:
        """Write codebook.safetensors and config.json into an existing or new folder; equal books give equal
        bytes."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"table": self._fitted(), "coefficient_range": self.coefficient_range_}
        save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / "codebook.safetensors")
        about = {"config": asdict(self.config), "dim": self.dim_, "generations": self.reports_}
        (folder / "config.json").write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        InputError
            If a file is missing or damaged, or the two do not fit together.
        """
        from safetensors.numpy import load_file

        for name in ("config.json", "codebook.safetensors"):
            if not (folder / name).is_file():
                raise InputError(f"{folder} has no {name}: not a codebook folder, or an incomplete one; fit again.")
        with reading(folder, "a codebook"):
            about = json.loads((folder / "config.json").read_text())
            book = cls(CodebookConfig(**about["config"]))
            tensors = load_file(folder / "codebook.safetensors")
            book.table_, book.coefficient_range_ = tensors["table"], tensors["coefficient_range"]
            book.reports_ = about["generations"]
            expected = (len(book.reports_), book._entry_layers(), book.config.size, about["dim"])
        if book.table_.shape != expected:
            raise InputError(
                f"{folder}: the table has shape {book.table_.shape}, config.json says {expected}; "
                "the folder is damaged, fit again."
            )
        return book

    def _entry_layers(self) -> int:
        return self.config.layers if self.config.form == "additive" else self.config.layers // 2

    def _fitted(self) -> npt.NDArray[np.float32]:
        if not hasattr(self, "table_"):
            raise InputError("this codebook is not fitted: call fit or load first.")
        return self.table_

    def _fit_one(
        self, vectors: Floats, sample_weight: npt.ArrayLike | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], dict[str, int | float]]:
        weight = None if sample_weight is None else check_weights(sample_weight, len(vectors))
        rows, distinct = distinct_sample(check_vectors(vectors), self.config.fit_sample, self.config.seed, weight)
        if distinct < self.config.size:
            raise InputError(
                f"vectors: {distinct} distinct ones of {len(vectors)}, but {self.config.size} entries "
                f"a layer need as many: give more items, or set codebook.size to a power of two up to {distinct}."
            )
        with torch.inference_mode():
            fit = fit_additive if self.config.form == "additive" else fit_projection
            result = fit(torch.from_numpy(rows), self.config)
        return result.table.numpy(), result.coefficient_range.numpy(), result.report

    def _checked(self, vectors: Floats) -> npt.NDArray[np.float32]:
        return check_vectors(vectors, self.dim_)

    def _checked_generation(self, generation: int) -> int:
        if not -1 <= generation < self.generations_:
            raise InputError(f"generation: got {generation}, the book has 0 to {self.generations_ - 1} (-1 = newest).")
        return generation % self.generations_
