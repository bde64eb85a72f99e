"""A release's manifest and id: the manifest vouches for the files beside it, and the id for the manifest."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from jobs.platform.errors import JobError
from jobs.platform.names import is_outside
from jobs.platform.warehouse import Warehouse

FORMAT = 4
MANIFEST = "manifest.json"
FOLDER = "releases"
ID = re.compile(r"\d{4}-\d{2}-\d{2}-[0-9a-f]{8}")


class ReleaseError(JobError):
    """A release is missing or damaged, or its id is not one."""


class NoRelease(ReleaseError):
    """There is no release of this id, or none any more."""


def check_id(release_id: str) -> str:
    """Return ``release_id`` if it is an id, else raise ReleaseError; this also keeps paths like ``../x``
    out."""
    if not ID.fullmatch(release_id):
        raise ReleaseError(f"release id: seen {release_id!r}; allowed: a day and 8 hex digits, 2017-12-24-0123abcd")
    return release_id


def read_manifest(warehouse: Warehouse, release_id: str) -> dict[str, Any]:
    """Read a release's manifest.

    Raises
    ------
    ReleaseError
        If the id is none, or the manifest is missing (`NoRelease`), changed or another release's.
    """
    raw = warehouse.storage.read(f"{FOLDER}/{check_id(release_id)}/{MANIFEST}")
    if raw is None:
        raise NoRelease(f"release {release_id}: seen no manifest; allowed: a published release of {warehouse.uri}")
    try:
        manifest: dict[str, Any] = json.loads(raw)
        outside = any(is_outside(name) for name in manifest["files"])
        body = {key: value for key, value in manifest.items() if key != "id"}
        vouched = manifest["id"] == release_id == f"{manifest['ds']}-{manifest_digest(body)}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(f"release {release_id}: the manifest cannot be read ({error!r}); restore it") from error
    if not vouched:
        raise ReleaseError(f"release {release_id}: the manifest is not this release's or was changed; restore it")
    if manifest["format"] != FORMAT:
        raise ReleaseError(
            f"release {release_id}: seen format {manifest['format']!r}; allowed: {FORMAT}; move the folder {FOLDER} "
            "away and publish again"
        )
    if outside:
        raise ReleaseError(f"release {release_id}: the manifest names files outside of its folder; do not use it")
    return manifest


def manifest_bytes(manifest: dict[str, Any]) -> bytes:
    """A manifest as it is stored."""
    return (json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def manifest_digest(manifest: dict[str, Any]) -> str:
    """The part of a release's id that vouches for its manifest, ``id`` left out."""
    return hashlib.sha256(manifest_bytes(manifest)).hexdigest()[:8]
