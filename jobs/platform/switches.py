"""On record: every switch of the current release, with who, when and why.

One JSON file a switch, ``releases/switches/TIME-ID.json``, beside the releases and never inside one.
"""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from typing import Any, Literal

from jobs.platform.manifest import FOLDER, ReleaseError, read_manifest
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

_SWITCHES = f"{FOLDER}/switches"
Kind = Literal["publish", "rollback"]


def record(release: Release, *, left: str | None, kind: Kind, who: str, why: str) -> dict[str, Any]:
    """Record a switch to ``release``; one that was cut short behind its record and is repeated is not recorded twice.

    Parameters
    ----------
    release : Release
    left : str or None
        Id of the release that is current before the switch; its files may be damaged.
    kind : {"publish", "rollback"}
    who, why : str
        For people.

    Returns
    -------
    dict
        The record: when (UTC), who, why, kind, and release and recommender that were left ("from", None the first
        time) and switched "to". The recommender of a release whose manifest is damaged is None.
    """
    earlier = history(release.warehouse)
    last = earlier[-1] if earlier else None
    to = {"release": release.id, "recommender": release.manifest["versions"]["recommender"]}
    if last is not None and last["to"] == to and left in (release.id, last["from"] and last["from"]["release"]):
        return last
    moment = datetime.datetime.now(datetime.UTC)
    entry = {
        "when": moment.isoformat(timespec="seconds"),
        "who": who,
        "why": why,
        "kind": kind,
        "from": None if left is None else _named(release.warehouse, left, earlier),
        "to": to,
    }
    name = f"{moment:%Y%m%dT%H%M%S.%fZ}-{release.id}.json"
    release.warehouse.storage.replace(f"{_SWITCHES}/{name}", (json.dumps(entry, indent=1) + "\n").encode())
    return entry


def _named(wh: Warehouse, release_id: str, earlier: list[dict[str, Any]]) -> dict[str, str | None]:
    recorded = (entry["to"] for entry in reversed(earlier) if entry["to"]["release"] == release_id)
    if (found := next(recorded, None)) is not None:
        return dict(found)
    with suppress(ReleaseError):  # damaged
        return {"release": release_id, "recommender": read_manifest(wh, release_id)["versions"]["recommender"]}
    return {"release": release_id, "recommender": None}


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
