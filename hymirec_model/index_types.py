"""The types of index that :func:`hymirec_model.index.build_index` chooses among: their size, their settings and what a
search costs.

Item vectors are 16-bit floats, so `flat`, `ivf` and `hnsw` keep them without loss at half the memory of 32 bits, and
read them faster. The others keep less: they fetch more items than are wanted, and an exact re-ranking from the vectors,
which retrieval does anyway, puts the right ones first. `ivf-int4` and `ivf-pq` are product quantisers of 4 bits, whose
tables of products stay in the registers of a processor, where 32 items are looked up at once (André et al. 2015,
"Cache locality is not enough", section 4; faiss calls it fast scan).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hymirec_model.vectors import float32_rows

HNSW_LINKS, HNSW_BUILD = 16, 80
IVF_TRAIN, IVF_ROUNDS = 64, 10  # vectors a list, and rounds of k-means, that the lists are trained with
STEP = 1.25  # of a ladder of settings
PQ_TRAIN, SQ_TRAIN = 4096, 100_000  # vectors that the quantisers of an inverted file are trained on
PQ_DIMENSIONS = {"ivf-int4": 1, "ivf-pq": 2}  # that share 4 bits, where the dimension can be divided so
PQ_BLOCK = 32  # items that a list of a product quantiser grows by
RERANK = 10.0  # time of scoring a fetched item exactly, that of an inner product in an inverted file being 1


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
        """Description for `faiss.index_factory`; of product quantisers as they are filled, see `packed`."""
        return {
            "flat": "SQfp16",
            "hnsw": f"HNSW{HNSW_LINKS}_SQfp16",
            "ivf": f"IVF{lists},SQfp16",
            "ivf-int8": f"IVF{lists},SQ8",
        }.get(self.name) or f"IVF{lists},PQ{self._pieces(dim)}x4np"  # no polysemous training, which nothing here uses

    def size(self, n: int, dim: int) -> int:
        """Bytes of an index over `n` vectors, to within a few percent."""
        if self.quantised:
            code = (self._pieces(dim) + 1) // 2
            lists = list_count(n)
            return n * (code + 8) + lists * (4 * dim + code * (PQ_BLOCK - 1) // 2) + 4 * dim * 16
        an_item = {"flat": 2 * dim, "hnsw": 2 * dim + 8 * HNSW_LINKS + 16, "ivf": 2 * dim + 8, "ivf-int8": dim + 8}
        return n * an_item[self.name] + (4 * dim * list_count(n) if self.inverted else 0)

    @property
    def inverted(self) -> bool:
        """Whether it is an inverted file."""
        return self.name.startswith("ivf")

    @property
    def quantised(self) -> bool:
        """Whether it is an inverted file of product-quantised vectors."""
        return self.name in PQ_DIMENSIONS

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

    def search_cost(self, products: float, neighbours: int) -> float:
        """Cost of a search that takes so many inner products a query and ranks what it fetched exactly."""
        return self.cost * products + RERANK * self.fetch * neighbours

    def least_cost(self, value: int, n: int, neighbours: int) -> float:
        """Cost that a search has at least, before anything is built."""
        all_or_some = 4 * value if self.setting else n
        products = list_count(n) if self.inverted else all_or_some
        return self.search_cost(products, neighbours)

    def _pieces(self, dim: int) -> int:
        """Parts of a vector that a product quantiser has 4 bits for."""
        wanted = max(1, dim // PQ_DIMENSIONS[self.name])
        return max(pieces for pieces in range(1, wanted + 1) if dim % pieces == 0)


TYPES = {
    kind.name: kind
    for kind in (
        IndexType("flat", 0.5, 1, ""),
        IndexType("hnsw", 10.0, 1, "ef"),
        IndexType("ivf", 1.0, 1, "probes"),
        IndexType("ivf-int8", 1.1, 2, "probes"),
        IndexType("ivf-int4", 0.45, 4, "probes"),
        IndexType("ivf-pq", 0.3, 16, "probes"),
    )
}


def list_count(n: int) -> int:
    """Lists of an inverted file over `n` vectors; faiss asks for 39 training vectors a list."""
    return max(1, min(round(4 * math.sqrt(n)), n // 39))


def train_lists(vectors: npt.NDArray[np.floating], seed: int) -> npt.NDArray[np.float32]:
    """Centres of the lists of an inverted file over vectors of shape (n, d), by k-means on a sample of them."""
    import faiss

    lists = list_count(len(vectors))
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        lists,
        niter=IVF_ROUNDS,
        spherical=True,
        seed=seed + 1,
        min_points_per_centroid=1,
        max_points_per_centroid=IVF_TRAIN,
    )
    kmeans.train(_sample(vectors, IVF_TRAIN * lists, seed))
    return np.asarray(kmeans.centroids, np.float32)


def train(kind: IndexType, vectors: npt.NDArray[np.floating], seed: int, centres: npt.NDArray[np.float32]) -> Any:
    """An empty index for vectors like these, of shape (n, d); `centres` are those of `train_lists`, which only
    inverted files use."""
    import faiss

    dim = vectors.shape[1]
    index: Any = faiss.index_factory(dim, kind.factory(len(centres), dim), faiss.METRIC_INNER_PRODUCT)
    if kind.name == "hnsw":
        index.hnsw.efConstruction = HNSW_BUILD
    if kind.inverted:
        index.quantizer.add(centres)
    if kind.quantised:
        index.pq.cp.seed, index.pq.cp.min_points_per_centroid = seed + 1, 1
        index.pq.cp.max_points_per_centroid = PQ_TRAIN // index.pq.ksub
    index.train(_sample(vectors, SQ_TRAIN, seed))
    return index


def packed(kind: IndexType, index: Any) -> Any:
    """A filled index in the form that is searched: codes of product quantisers stand in blocks of 32 items."""
    import faiss

    if not kind.quantised:
        return index
    blocks = faiss.IndexIVFPQFastScan(index)
    index.own_fields, blocks.own_fields = False, True  # the centres are those of the new index now
    return blocks


def merges(kind: IndexType) -> bool:
    """Whether parts that were filled apart can be merged into what one filling would have made."""
    return kind.name != "hnsw"


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


def _sample(vectors: npt.NDArray[np.floating], count: int, seed: int) -> npt.NDArray[np.float32]:
    rows = np.sort(np.random.default_rng(seed).choice(len(vectors), min(len(vectors), count), replace=False))
    return float32_rows(vectors, rows)
