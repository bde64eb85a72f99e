"""Which model serves a day, and how the champion's parts come back into force after a refusal or a rollback."""

from __future__ import annotations

import shutil
from typing import Literal

from jobs.platform.parts import MODEL_PARTS, model_parts, space_version
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

TABLE = "model_choice"
Chosen = Literal["challenger", "champion", "same model"]
_IDENTITY = {
    "encoder": ("version",),
    "item_space": ("version",),
    "codebook": ("book", "tables"),  # a further generation leaves the book its name
    "recommender": ("model_version",),
}


def champion_serves(wh: Warehouse, ds: str) -> bool:
    """Tell whether the model trained on day ``ds`` was refused, so that no model is due on it any more."""
    choice = wh.find(TABLE, ds)
    return choice is not None and choice.info["chosen"] == "champion"


def versions_in_force(wh: Warehouse, ds: str) -> dict[str, str]:
    """Versions of the model parts of day ``ds``, as evaluations name them."""
    parts = model_parts(wh, ds)
    return {
        "space": space_version(parts["encoder"], parts["item_space"]),
        "codebook": parts["codebook"].info["book"],
        "recommender": parts["recommender"].info["model_version"],
    }


def restore_parts(wh: Warehouse, release: Release, until: str | None = None) -> list[str]:
    """Put a release's models in force, from its own files, on their day and on every later one (up to ``until``).

    Returns
    -------
    list of str
        ``table/ds=DAY`` of each partition that was written. Running it again writes none.
    """
    written = []
    for table in MODEL_PARTS:
        own = release.manifest["model_parts"][table]
        days = {own["ds"], *(day for day in wh.partitions(table) if own["ds"] < day <= (until or day))}
        for day in sorted(days):
            found = wh.find(table, day)
            if found is None or any(found.info[name] != own["info"][name] for name in _IDENTITY[table]):
                with wh.write_partition(table, day) as part:
                    shutil.copytree(release.local() / table, part.local, dirs_exist_ok=True)
                    part.info |= own["info"]
                written.append(f"{table}/ds={day}")
    return written
