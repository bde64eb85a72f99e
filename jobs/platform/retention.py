"""Which releases are kept, and how the others go."""

from __future__ import annotations

from collections.abc import Collection

from jobs.platform.manifest import FOLDER, MANIFEST
from jobs.platform.releases import Release, all_ids
from jobs.platform.warehouse import Warehouse


def retire(warehouse: Warehouse, count: int, needed: Collection[str]) -> list[str]:
    """Remove all releases but the ``count`` of the newest days; return the ids of those removed.

    Parameters
    ----------
    warehouse : Warehouse
    count : int
    needed : collection of str
        Ids that stay whatever their age; the current release and its parent stay too.
    """
    current = Release.open(warehouse)
    ids = all_ids(warehouse)
    stay = {*ids[-count:], *needed, current.id, current.parent}
    gone = [name for name in ids if name not in stay]
    for name in gone:
        warehouse.storage.remove_file(f"{FOLDER}/{name}/{MANIFEST}")  # first: from here on there is no such release
        warehouse.storage.remove(f"{FOLDER}/{name}")
    return gone
