"""Attempts at a partition that nobody needs: which they are, and how they go."""

from __future__ import annotations

from contextlib import suppress

from jobs.platform.storage import Storage

_GIVEN_UP = "_given_up"


def give_up(storage: Storage, folder: str) -> None:
    """Leave an attempt's files with a mark by which the next commit knows that nobody writes there any more."""
    with suppress(OSError):  # a full disk: the attempt counts as abandoned a day later
        storage.replace(f"{folder}/{_GIVEN_UP}", b"")


def clean(storage: Storage, base: str, keep: tuple[str | None, ...], superseded: str | None) -> None:
    """Remove attempts below ``base`` that nobody needs: not those of a retry that may still be writing."""
    for attempt in storage.folders(base):
        if attempt in keep:
            continue
        folder = f"{base}/{attempt}"
        given_up = storage.existing([f"{folder}/{_GIVEN_UP}"])[0]
        if attempt == superseded or given_up or storage.abandoned(folder):
            storage.remove(folder)
