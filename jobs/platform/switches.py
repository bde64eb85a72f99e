"""On record: every switch of the current release, with who, when and why.

One JSON file a switch, ``releases/switches/TIME-ID.json``, beside the releases and never inside one.
"""

from __future__ import annotations

import datetime
import json
from typing import Any, Literal

from jobs.platform.manifest import FOLDER
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

_SWITCHES = f"{FOLDER}/switches"
Kind = Literal["publish", "rollback"]


def record(release: Release, *, kind: Kind, who: str, why: str, refresh: str) -> dict[str, Any]:
    """Record a switch to ``release``; a switch that stands on record as the last one is not recorded twice.

    Parameters
    ----------
    release : Release
    kind : {"publish", "rollback"}
    who, why : str
        For people.
    refresh : str
        Id of the run that switches.

    Returns
    -------
    dict
        The record: when (UTC), who, why, kind, refresh, and release and recommender that were left ("from", None the
        first time) and switched "to".
    """
    earlier = history(release.warehouse)
    last = earlier[-1] if earlier else None
    to = {"release": release.id, "recommender": release.manifest["versions"]["recommender"]}
    if last is not None and last["to"] == to:
        return last
    moment = datetime.datetime.now(datetime.UTC)
    entry = {
        "when": moment.isoformat(timespec="seconds"),
        "who": who,
        "why": why,
        "kind": kind,
        "refresh": refresh,
        "from": last["to"] if last else None,
        "to": to,
    }
    name = f"{moment:%Y%m%dT%H%M%S.%fZ}-{release.id}.json"
    release.warehouse.storage.replace(f"{_SWITCHES}/{name}", (json.dumps(entry, indent=1) + "\n").encode())
    return entry


def history(wh: Warehouse) -> list[dict[str, Any]]:
    """All records, oldest first."""
    found = []
    for name in sorted(wh.storage.files(_SWITCHES)):
        raw = wh.storage.read(f"{_SWITCHES}/{name}")
        assert raw is not None
        found.append(json.loads(raw))
    return found


def rolled_back(wh: Warehouse, recommender: str) -> dict[str, Any] | None:
    """The record by which a model was last rolled back; None if it never was, or was switched to on purpose since.

    Parameters
    ----------
    wh : Warehouse
    recommender : str
        Version of the model's recommender.
    """
    found = None
    for entry in history(wh):
        left = entry["from"]["recommender"] if entry["from"] else None
        if entry["to"]["recommender"] == recommender:
            found = None
        elif entry["kind"] == "rollback" and left == recommender:
            found = entry
    return found
