"""The decoder of a residual codebook as a torch module: codes are looked up where the model runs.

Shapes: G generations, L bytes an item, l layers of k entries (L, or L / 2 beside as many coefficients), d
dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from hymirec_model.errors import InputError

CPU_ROWS = 1024  # decoded at once on a CPU


class CodeTable(nn.Module):
    """Codes and generations to unit vectors, in one gather.

    Parameters
    ----------
    table_GLkd : Tensor of shape (G, l, k, d)
    coefficient_range : Tensor of shape (G, l, 2), or (G, 0, 2) where the sum is plain
    """

    table: Tensor
    coefficient_range: Tensor
    offset: Tensor

    def __init__(self, table_GLkd: Tensor, coefficient_range: Tensor) -> None:
        super().__init__()
        self.generations, self.layers, self.size, self.dim = table_GLkd.shape
        self.bytes = self.layers + coefficient_range.shape[1]
        self.register_buffer("table", table_GLkd.reshape(-1, self.dim))
        self.register_buffer("coefficient_range", coefficient_range)
        self.register_buffer("offset", torch.arange(self.layers) * self.size, persistent=False)

    def forward(self, codes: Tensor, generation: Tensor) -> Tensor:
        """Codes of shape (..., L), generation of shape (...), both of any integers: float32 of shape (..., d)."""
        flat, which = codes.reshape(-1, self.bytes), generation.expand(codes.shape[:-1]).reshape(-1)
        if codes.device.type == "cpu":  # sums are brought to unit length while a core's cache has them
            rebuilt = torch.empty(len(flat), self.dim)
            for start in range(0, len(flat), CPU_ROWS):
                part = slice(start, start + CPU_ROWS)
                rebuilt[part] = self._decode(flat[part], which[part])
        else:
            rebuilt = self._decode(flat, which)
        return rebuilt.reshape(*codes.shape[:-1], self.dim)

    def _decode(self, codes: Tensor, generation: Tensor) -> Tensor:
        # Bytes until here: a catalogue's codes lie on the device, and only those that are read become wide.
        entries, levels, generation = codes[:, : self.layers], codes[:, self.layers :], generation.long()
        row = generation[:, None] * (self.layers * self.size) + self.offset + entries
        weights = None
        if self.bytes > self.layers:
            bounds = self.coefficient_range[generation]
            weights = bounds[..., 0] + levels * ((bounds[..., 1] - bounds[..., 0]) / 255)
        return normalize(embedding_bag(row, self.table, mode="sum", per_sample_weights=weights), dim=-1)

    def checked(
        self, codes: npt.NDArray[np.integer], generation: npt.ArrayLike | None
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Codes (n, L) and generations (n,) as `forward` takes them, or an InputError; bytes are not copied."""
        if generation is None and self.generations > 1:
            raise InputError(
                f"generation: none given, but the book has {self.generations}; pass those stored with the codes."
            )
        which = np.asarray(0 if generation is None else generation)
        if codes.ndim != 2 or codes.shape[1] != self.bytes or not np.issubdtype(codes.dtype, np.integer):
            raise InputError(f"codes: got shape {codes.shape} {codes.dtype}, expected integers (n, {self.bytes}).")
        if which.shape not in ((), (len(codes),)) or not np.issubdtype(which.dtype, np.integer):
            raise InputError(
                f"generation: got shape {which.shape} {which.dtype}, expected one integer or {len(codes)} of them."
            )
        if which.size and not 0 <= which.min() <= which.max() < self.generations:
            raise InputError(
                f"generation: got {which.min()} to {which.max()}, the book has 0 to {self.generations - 1}: "
                "codes and book are of different days."
            )
        entries = codes[:, : self.layers]
        if entries.size and not 0 <= entries.min() <= entries.max() < self.size:
            raise InputError(
                f"codes: got {entries.min()} to {entries.max()}, the book has entries 0 to {self.size - 1}."
            )
        return _bytes(codes), _bytes(which if which.shape else np.full(len(codes), which))


def _bytes(numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    return np.require(numbers, np.uint8, ["C", "W"])  # of memory that is read-only torch would warn
