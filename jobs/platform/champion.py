"""The champion of a day: the model of the release before it, as that release holds it.

An evaluation ranks with it beside the day's own model, on the same users, so that a gate can compare the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from jobs.platform import releases
from jobs.platform.errors import WarehouseError
from jobs.platform.releases import Release
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Warehouse

if TYPE_CHECKING:
    import torch

    from hymirec_model.inference import UserModel


@dataclass(frozen=True, slots=True)
class Champion:
    """A published release, as the rival of the model of day ``ds``."""

    release: Release
    same_model: bool
    """Whether the day's model is the champion's: no model was trained since."""

    @classmethod
    def of(cls, wh: Warehouse, ds: str, parts: ModelParts) -> Champion | None:
        """Find the champion of day ``ds``; None before the first release."""
        release = releases.before(wh, ds)
        if release is None:
            return None
        versions = release.manifest["versions"]
        return cls(release, all(versions[name] == version for name, version in parts.versions.items()))

    @property
    def cut(self) -> str:
        """First day that no part of the model was trained on."""
        parts = self.release.manifest["model_parts"].values()
        return max(str(part["info"].get("cut", "")) for part in parts)

    def numbers(self, item_ids: pa.Array[Any]) -> npt.NDArray[np.int64]:
        """Number today of each of the champion's n items, -1 where an item is not in today's catalogue.

        They are those of the release, but where a past day has been run again: it numbers anew what came since.

        Parameters
        ----------
        item_ids : array of strings
            Items of the day in the order of item_index.

        Raises
        ------
        WarehouseError
            If the day has none of the champion's items.
        """
        found = pc.index_in(self.release.recommender.names["item_id"].combine_chunks(), value_set=item_ids)
        if found.null_count == len(found):
            raise WarehouseError(
                f"release {self.release.id}: seen no item of today's catalogue; allowed: a catalogue that only grows. "
                "Was the warehouse made anew? Then move its folder releases away too"
            )
        return np.asarray(found.fill_null(-1).to_numpy(), np.int64)

    def load(self, device: torch.device) -> tuple[UserModel, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Load the model, its item vectors of shape (n, d), and the vectors that weights of interests are made from."""
        from hymirec_model.inference import calibration_sample

        recommender = self.release.recommender
        vectors = recommender.vectors.astype(np.float32)
        return recommender.load_user_model(device), vectors, vectors[calibration_sample(len(vectors))]
