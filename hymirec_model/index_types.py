"""The types of index that :func:`hymirec_model.index.build_index` chooses among: their size, their settings and what a
search costs.

Item vectors are 16-bit floats, so `flat`, `ivf` and `hnsw` keep them without loss at half the memory of 32 bits, and
read them faster. `ivf-int8` and `ivf-pq` keep less: they fetch more items than are wanted, and an exact re-ranking from
the vectors, which retrieval does anyway, puts the right ones first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

HNSW_LINKS, HNSW_BUILD = 16, 80
IVF_TRAIN = 64  # vectors read a list when the lists are trained
STEP = 1.25  # of a ladder of settings
PQ_TRAIN = 16_384  # vectors that a product quantiser is trained on
PQ_DIMENSIONS = 4  # that share a byte, where the dimension can be divided so


@dataclass(frozen=True, slots=True)
class IndexType:
    """One type of index."""

    name: str
    cost: float
    """Time of one inner product, that of `ivf` being 1: measured on one thread with the eight queries of a user a
    call, see benchmarks/README.md. A graph jumps through memory, the others read on."""
    fetch: int
    """Items to fetch for each one wanted."""
    setting: str
    """Name of the setting that trades speed for recall; empty where there is none."""

    def factory(self, lists: int, dim: int) -> str:
        """Description for `faiss.index_factory`."""
        return {
            "flat": "SQfp16",
            "hnsw": f"HNSW{HNSW_LINKS}_SQfp16",
            "ivf": f"IVF{lists},SQfp16",
            "ivf-int8": f"IVF{lists},SQ8",
            "ivf-pq": f"IVF{lists},PQ{_pieces(dim)}x8np",  # no polysemous training, which nothing here uses
        }[self.name]

    def size(self, n: int, dim: int) -> int:
        """Bytes of an index over `n` vectors, to within a few percent."""
        an_item = {
            "flat": 2 * dim,
            "hnsw": 2 * dim + 8 * HNSW_LINKS + 16,
            "ivf": 2 * dim + 8,
            "ivf-int8": dim + 8,
            "ivf-pq": _pieces(dim) + 8,
        }[self.name]
        tables = 4 * dim * (256 if self.name == "ivf-pq" else 0)
        return n * an_item + tables + (4 * dim * list_count(n) if self.inverted else 0)

    @property
    def inverted(self) -> bool:
        """Whether it is an inverted file."""
        return self.name.startswith("ivf")

    def ladder(self, n: int, neighbours: int) -> list[int]:
        """Values of the setting, from the cheapest search to the dearest; [0] where there is none."""
        if not self.setting:
            return [0]
        if self.inverted:
            value, limit = 4, list_count(n)
        else:
            value, limit = max(64, neighbours), max(2048, 8 * neighbours)
        values = []
        while value < limit:
            values.append(value)
            value = math.ceil(value * STEP)
        return [*values, limit]

    def least_cost(self, value: int, n: int) -> float:
        """Cost that a search has at least, before anything is built."""
        if self.inverted:
            return float(list_count(n))
        return self.cost * (4 * value if self.setting else n)


TYPES = {
    kind.name: kind
    for kind in (
        IndexType("flat", 0.8, 1, ""),
        IndexType("hnsw", 10.0, 1, "ef"),
        IndexType("ivf", 1.0, 1, "probes"),
        IndexType("ivf-int8", 1.1, 2, "probes"),
        IndexType("ivf-pq", 1.2, 4, "probes"),
    )
}


def list_count(n: int) -> int:
    """Lists of an inverted file over `n` vectors; faiss asks for 39 training vectors a list."""
    return max(1, min(round(4 * math.sqrt(n)), n // 39))


def train(kind: IndexType, vectors: npt.NDArray[np.floating], seed: int) -> Any:
    """An empty index for vectors like these, of shape (n, d); inverted files are trained on a sample of them."""
    import faiss

    n, dim = vectors.shape
    lists = list_count(n)
    index: Any = faiss.index_factory(dim, kind.factory(lists, dim), faiss.METRIC_INNER_PRODUCT)
    if kind.name == "hnsw":
        index.hnsw.efConstruction = HNSW_BUILD
    if kind.inverted:
        index.cp.seed = seed + 1
        index.cp.niter, index.cp.spherical = 10, True
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, IVF_TRAIN
    if kind.name == "ivf-pq":
        index.pq.cp.seed, index.pq.cp.min_points_per_centroid = seed + 1, 1
        index.pq.cp.max_points_per_centroid = PQ_TRAIN // 256
    count = min(n, max(IVF_TRAIN * lists, PQ_TRAIN))
    rows = np.sort(np.random.default_rng(seed).choice(n, count, replace=False))
    index.train(np.ascontiguousarray(vectors[rows], np.float32))
    return index


def apply(kind: IndexType, index: Any, value: int) -> None:
    """Set the setting that trades speed for recall."""
    if kind.setting == "probes":
        index.nprobe = value
    elif kind.setting == "ef":
        index.hnsw.efSearch = value


def products(kind: IndexType, index: Any, queries: int) -> float:
    """Inner products a query that the searches since `reset` took."""
    counted = _counters()[kind.name].ndis / queries if kind.setting else index.ntotal
    return float(counted + (index.nlist if kind.inverted else 0))


def reset(kind: IndexType) -> None:
    """Start counting anew."""
    if kind.setting:
        _counters()[kind.name].reset()


def _counters() -> dict[str, Any]:
    import faiss

    counters: Any = faiss.cvar
    inverted = counters.indexIVF_stats
    return {name: counters.hnsw_stats if name == "hnsw" else inverted for name in TYPES}


def _pieces(dim: int) -> int:
    """Bytes of a product quantiser's code: the most that divide the dimension, of one for PQ_DIMENSIONS or more."""
    return max(pieces for pieces in range(1, max(1, dim // PQ_DIMENSIONS) + 1) if dim % pieces == 0)
