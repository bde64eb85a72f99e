"""Vector quantisers at an equal number of bytes, behind one face: ours, faiss's, and others.

Shapes: n vectors, d dimensions. A contender is made by ``fit(train, n_bytes, seed)``; its ``encode`` gives n codes of
``n_bytes`` bytes each, its ``decode`` n vectors of any length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt
import torch

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig

Floats = npt.NDArray[np.float32]


class Quantizer(NamedTuple):
    """A fitted contender."""

    encode: Callable[[Floats], Any]
    decode: Callable[[Any], Floats]
    encode_lut: Callable[[Floats], Any] | None = None
    """The same search by lookup tables, where the peer has both."""


Fit = Callable[[Floats, int, int], Quantizer]


def ours(**settings: Any) -> Fit:
    """The residual codebook of this project."""

    def fit(train: Floats, n_bytes: int, seed: int) -> Quantizer:
        book = ResidualCodebook(CodebookConfig(layers=n_bytes, seed=seed, **settings)).fit(train)
        return Quantizer(book.encode, book.decode)

    return fit


def faiss_residual(beam: int) -> Fit:
    """faiss.ResidualQuantizer, which can encode with lookup tables (use_beam_LUT) and without; the fit is the same."""

    def fit(train: Floats, n_bytes: int, seed: int) -> Quantizer:
        quantizer: Any = faiss.ResidualQuantizer(train.shape[1], n_bytes, 8)
        quantizer.max_beam_size, quantizer.cp.seed = beam, 1234 + seed
        quantizer.cp.min_points_per_centroid = 1  # no warning a layer
        quantizer.train(train)

        def encode(vectors: Floats, lut: int) -> Any:
            quantizer.use_beam_LUT = lut
            return quantizer.compute_codes(vectors)

        return Quantizer(partial(encode, lut=0), quantizer.decode, partial(encode, lut=1))

    return fit


def faiss_product_residual(splits: int) -> Fit:
    """faiss.ProductResidualQuantizer: a residual quantiser for each of ``splits`` slices of a vector."""

    def fit(train: Floats, n_bytes: int, seed: int) -> Quantizer:
        return _additive(faiss.ProductResidualQuantizer(train.shape[1], splits, n_bytes // splits, 8), train)

    return fit


def faiss_local_search(train: Floats, n_bytes: int, seed: int) -> Quantizer:
    """faiss.LocalSearchQuantizer (LSQ)."""
    quantizer: Any = faiss.LocalSearchQuantizer(train.shape[1], n_bytes, 8)
    quantizer.random_seed += seed
    return _additive(quantizer, train)


def faiss_index(description: str) -> Fit:
    """Standalone codec of a faiss index; ``{}`` stands for the bytes."""

    def fit(train: Floats, n_bytes: int, seed: int) -> Quantizer:
        index = faiss.index_factory(train.shape[1], description.format(n_bytes))
        index.train(train)
        return Quantizer(index.sa_encode, index.sa_decode)

    return fit


def normalised_residual_kmeans(train: Floats, n_bytes: int, seed: int) -> Quantizer:
    """Greedy residual k-means on residuals that are brought to unit length before each layer.

    A residual's own length is lost, so an entry has the mean length of the residuals along it.
    """
    rest, layers = train, []
    for layer in range(n_bytes):
        kmeans = faiss.Kmeans(train.shape[1], 256, niter=12, seed=seed + layer, spherical=True)
        kmeans.train(rest / np.linalg.norm(rest, axis=1, keepdims=True).clip(1e-12))
        directions = np.asarray(kmeans.centroids)
        along = rest @ directions.T
        codes = along.argmax(1)
        total = np.bincount(codes, along[np.arange(len(codes)), codes], minlength=256)
        lengths = total / np.bincount(codes, minlength=256).clip(1)
        layers.append((directions, (directions * lengths[:, None]).astype(np.float32)))
        rest = rest - layers[-1][1][codes]

    def encode(vectors: Floats) -> Any:
        codes = []
        for directions, entries in layers:
            codes.append((vectors @ directions.T).argmax(1))
            vectors = vectors - entries[codes[-1]]
        return np.stack(codes, 1).astype(np.uint8)

    return Quantizer(encode, lambda codes: np.sum([e[c] for (_, e), c in zip(layers, codes.T, strict=True)], axis=0))


def residual_vq(train: Floats, n_bytes: int, seed: int) -> Quantizer:
    """ResidualVQ of vector-quantize-pytorch: k-means start, then 20 passes of moving averages."""
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(seed)
    model = ResidualVQ(
        dim=train.shape[1],
        num_quantizers=n_bytes,
        codebook_size=256,
        kmeans_init=True,
        kmeans_iters=10,
        threshold_ema_dead_code=2,
    ).train()
    rows = torch.from_numpy(train)
    with torch.no_grad():
        model(rows[torch.randperm(len(rows))[:16_384]])
        for _ in range(20):
            for batch in torch.split(rows[torch.randperm(len(rows))], 4096):
                model(batch)
    model.eval()

    @torch.no_grad()
    def encode(vectors: Floats) -> Any:
        return model(torch.from_numpy(vectors))[1].numpy().astype(np.uint8)

    @torch.no_grad()
    def decode(codes: Any) -> Floats:
        return np.asarray(model.get_output_from_indices(torch.from_numpy(codes.astype(np.int64))))

    return Quantizer(encode, decode)


def _additive(quantizer: Any, train: Floats) -> Quantizer:
    quantizer.train(train)
    return Quantizer(quantizer.compute_codes, quantizer.decode)


OURS: dict[str, Fit] = {"HyMiRec": ours()}
PAPER: dict[str, Fit] = {"paper's projection": ours(form="projection")}
PEERS: dict[str, Fit] = {
    "faiss RQ, beam 5": faiss_residual(5),
    "faiss RQ, beam 16": faiss_residual(16),
    "faiss PRQ, 2 splits": faiss_product_residual(2),
    "faiss LSQ": faiss_local_search,
    "faiss OPQ+PQ": faiss_index("OPQ{0},PQ{0}x8"),
    "faiss PQ": faiss_index("PQ{}x8"),
    "faiss PCA+int8": faiss_index("PCA{},SQ8"),
    "ResidualVQ": residual_vq,
    "k-means, normalised residuals": normalised_residual_kmeans,
}
SLOW_FROM = {"faiss LSQ": 16}  # bytes; on ml-1m a fit takes 25 s at 8, 150 s at 16
