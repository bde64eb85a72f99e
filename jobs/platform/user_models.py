"""The recommender, the codebook and the codes of a day: what turns histories into interests in every job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.platform import columns
from jobs.platform.errors import WarehouseError
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    import torch

    from hymirec_model.inference import UserModel


@dataclass(frozen=True, slots=True)
class ModelParts:
    """Partitions that belong together; get them from :meth:`find`."""

    recommender: Partition
    codebook: Partition
    codes: Partition
    vectors: Partition

    @classmethod
    def find(cls, wh: Warehouse, ds: str) -> ModelParts:
        """Find the newest recommender and codebook on or before ``ds``, and the day's codes and item vectors.

        Raises
        ------
        MissingPartition
            If one of them does not exist.
        WarehouseError
            If they were not made for one another.
        """
        vectors, codes = wh.partition("item_vectors", ds), wh.partition("item_codes", ds)
        recommender = wh.latest("recommender", until=ds) or wh.partition("recommender", ds)
        codebook = wh.latest("codebook", until=ds) or wh.partition("codebook", ds)
        _same("space_version", vectors, recommender, "train_recommender")
        _same("space_version", vectors, codes, "encode_items")
        _same("tables", codebook, codes, "encode_items")
        return cls(recommender, codebook, codes, vectors)

    @property
    def versions(self) -> dict[str, str]:
        """What tells two models apart: item space, book and recommender."""
        return {
            "space": self.vectors.info["space_version"],
            "codebook": self.codes.info["book"],
            "recommender": self.recommender.info["model_version"],
        }

    def load(self, wh: Warehouse, device: torch.device | None = None) -> UserModel:
        """Load the model with the codes of all items."""
        from hymirec_model.inference import UserModel

        return UserModel.load(
            wh.local_copy(self.recommender),
            wh.local_copy(self.codebook),
            columns.vectors(wh, self.codes, "codes"),
            columns.column(wh, self.codes, "generation"),
            device,
        )

    def calibration_vectors(self, wh: Warehouse) -> npt.NDArray[np.float32]:
        """Vectors of the items that a user's interests are compared on."""
        from hymirec_model.inference import calibration_sample

        n_items = len(columns.column(wh, self.vectors, "item_index"))
        return columns.vectors(wh, self.vectors, rows=calibration_sample(n_items)).astype(np.float32)


def _same(key: str, wanted: Partition, found: Partition, job: str) -> None:
    seen: Any = found.info[key]
    if seen != wanted.info[key]:
        raise WarehouseError(
            f"{found.table}/ds={found.ds}: seen {key} {seen}; allowed: {wanted.info[key]}, "
            f"that of {wanted.table}/ds={wanted.ds}; run {job} for this day again"
        )
