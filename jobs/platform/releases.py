"""Releases: what a retrieval service loads. One release is one immutable folder, and one small file names the
current one.

::

    releases/<id>/manifest.json   every file with its bytes and SHA-256, row counts, shapes, where it came from
    releases/<id>/…               encoder, item_space, recommender, codebook, items, interests, index, evaluation
    releases/CURRENT              the id of the release to load, replaced atomically
    releases/switches/…           who switched CURRENT, when and why

The id is the day and the first 8 hex digits of the manifest's SHA-256, so equal content has an equal id, and
a manifest vouches for all files beside it. A reader opens one id and gets parts of that release or an error,
never a mixture.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform.manifest import FOLDER, ID, MANIFEST, NoRelease, ReleaseError, check_id, read_manifest
from jobs.platform.warehouse import Warehouse

if TYPE_CHECKING:
    from jobs.platform.given_events import Events
    from jobs.platform.recommend import Recommended, Recommender

_CURRENT = f"{FOLDER}/CURRENT"
_CHUNK = 1 << 20
_SHOWN = 3  # faults that an error message names


@dataclass(frozen=True)
class Release:
    """An open release; get one from `Release.open`.

    Opening reads the manifest and the sizes of files. What recommending needs is read when it is first asked for,
    and kept.
    """

    warehouse: Warehouse
    id: str
    manifest: dict[str, Any]

    @classmethod
    def open(cls, warehouse: Warehouse | str, release_id: str | None = None, *, full: bool = False) -> Release:
        """Open a release after checking it.

        Parameters
        ----------
        warehouse : Warehouse or str
            The warehouse, or its URI.
        release_id : str, optional
            Default: the current release.
        full : bool, default=False
            Compare the SHA-256 of every file. Without it: the manifest's own hash, the names and bytes of all
            files.

        Returns
        -------
        Release

        Raises
        ------
        ReleaseError
            If there is no such release, or it is damaged, or files of another are mixed in.
        """
        wh = Warehouse(warehouse) if isinstance(warehouse, str) else warehouse
        name = check_id(release_id if release_id is not None else _current(wh))
        release = cls(wh, name, read_manifest(wh, name))
        faults = release._faults(full)
        if faults:
            more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
            raise ReleaseError(
                f"release {name} is damaged: {'; '.join(faults[:_SHOWN])}{more}; "
                "restore the folder or publish the day again"
            )
        return release

    def evaluation(self) -> dict[str, Any]:
        """Content of its evaluation.json."""
        found: dict[str, Any] = json.loads((self.local() / "evaluation" / "evaluation.json").read_text())
        return found

    @property
    def ds(self) -> str:
        """Day of the release."""
        return str(self.manifest["ds"])

    @property
    def parent(self) -> str | None:
        """Id of the release before."""
        return None if self.manifest["parent"] is None else str(self.manifest["parent"])

    def files(self, part: str) -> list[str]:
        """Names of the files of a part ("items", "interests", …), sorted."""
        return sorted(name for name in self.manifest["files"] if name.startswith(f"{part}/"))

    def part_bytes(self) -> dict[str, int]:
        """Bytes of each part, in the order of their names."""
        sizes: dict[str, int] = {}
        for name, about in sorted(self.manifest["files"].items()):
            part = name.split("/")[0]
            sizes[part] = sizes.get(part, 0) + about["bytes"]
        return sizes

    @property
    def folder(self) -> str:
        """Folder of the release, relative to the warehouse."""
        return f"{FOLDER}/{self.id}"

    def local(self) -> Path:
        """The release as a folder of this machine: itself when local, else a cached download."""
        return self.warehouse.local_folder(self.folder)

    def table(self, part: str, columns: list[str] | None = None) -> pa.Table:
        """A part that is made of Parquet files, as one table."""
        names = [name for name in self.files(part) if name.endswith(".parquet")]
        if not names:
            raise ReleaseError(f"release {self.id}: seen no table {part!r}; allowed: items, interests")
        storage = self.warehouse.storage
        paths = [storage.path(self.folder, name) for name in names]
        return pa.concat_tables(
            pq.read_table(path, columns=columns, filesystem=storage.filesystem, partitioning=None) for path in paths
        )

    @cached_property
    def recommender(self) -> Recommender:
        """What recommends from this release; keeps what it has read."""
        from jobs.platform.recommend import Recommender

        return Recommender(self)

    def recommend(
        self, user_id: str, n: int = 20, *, exclude_seen: bool = True, diversity: float = 0.0
    ) -> list[Recommended]:
        """Recommend items to a user of the release.

        Parameters
        ----------
        user_id : str
        n : int, default=20
            Length of the list; shorter only where no more items are left.
        exclude_seen : bool, default=True
            Leave out the items of the user's history, of which the newest ``histories.max_length`` events are kept.
        diversity : float, default=0.0
            0 to 1: weight of unlikeness to the items above, beside relevance. Above 0, the list is chosen from the
            5 n best by maximal marginal relevance (see :mod:`hymirec_model.diversity`).

        Returns
        -------
        list of Recommended
            (item_id, title, score), best first.

        Raises
        ------
        ReleaseError
            If the release has no such user.
        InputError
            If n or diversity is not allowed.
        """
        return self.recommend_batch([user_id], n, exclude_seen=exclude_seen, diversity=diversity)[0]

    def recommend_batch(
        self, user_ids: Sequence[str], n: int = 20, *, exclude_seen: bool = True, diversity: float = 0.0
    ) -> list[list[Recommended]]:
        """Recommend items to several users of the release: a list each, as `recommend` gives it.

        Each bucket of users is read once. Memory grows with the number of users.
        """
        made = self.recommender
        users = made.interests(user_ids)
        return made.lists(users, n, exclude_seen=exclude_seen, diversity=diversity)

    def recommend_events(
        self,
        events: Events,
        n: int = 20,
        *,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        now: float | None = None,
        skip_unknown: bool = False,
    ) -> list[Recommended]:
        """Recommend items to anybody by events, with the release's model; nobody needs to have seen them in training.

        Given a user's history of the release, the list is that of `recommend`.

        Parameters
        ----------
        events : sequence of (item_id, seconds since 1970 UTC)
            In any order; events of equal time stand oldest first. The newest ``histories.max_length`` count.
        n, exclude_seen, diversity
            See `recommend`; seen are the items of `events`.
        now : float, optional
            Seconds since 1970 UTC from which ages of events are counted; by default the end of the day of the newest
            event, as in the release. Events after it count as happening now.
        skip_unknown : bool, default=False
            Leave out events of items that the release does not hold, such as newer ones.

        Returns
        -------
        list of Recommended
            (item_id, title, score), best first.

        Raises
        ------
        InputError
            If there is no event, an event is no such pair, an item is unknown, or n, diversity or now is not allowed.
        """
        return self.recommend_events_batch(
            [events], n, exclude_seen=exclude_seen, diversity=diversity, now=now, skip_unknown=skip_unknown
        )[0]

    def recommend_events_batch(
        self,
        batch: Sequence[Events],
        n: int = 20,
        *,
        exclude_seen: bool = True,
        diversity: float = 0.0,
        now: float | None = None,
        skip_unknown: bool = False,
    ) -> list[list[Recommended]]:
        """Recommend items by several people's events: a list each, as `recommend_events` gives it."""
        made = self.recommender
        users = made.interests_of_events(batch, now=now, skip_unknown=skip_unknown)
        return made.lists(users, n, exclude_seen=exclude_seen, diversity=diversity)

    def _faults(self, full: bool) -> list[str]:
        expected: dict[str, dict[str, Any]] = self.manifest["files"]
        found = self.warehouse.storage.files(self.folder)
        found.pop(MANIFEST, None)
        faults = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
        faults += [f"{name} does not belong to it" for name in sorted(found.keys() - expected.keys())]
        for name in sorted(expected.keys() & found.keys()):
            if found[name] != expected[name]["bytes"]:
                faults.append(f"{name} has {found[name]:,} bytes instead of {expected[name]['bytes']:,}")
            elif full and self._sha256(name) != expected[name]["sha256"]:
                faults.append(f"{name} has other content than the manifest says")
        return faults

    def _sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        storage = self.warehouse.storage
        with storage.filesystem.open_input_stream(storage.path(self.folder, name)) as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest()


def current_id(warehouse: Warehouse) -> str | None:
    """Id of the current release, None before the first one."""
    raw = warehouse.storage.read(_CURRENT)
    return None if raw is None else check_id(raw.decode("utf-8", "replace").strip())


def switch(release: Release) -> None:
    """Make a release the current one, in one atomic step."""
    release.warehouse.storage.replace(_CURRENT, f"{release.id}\n".encode())


def before(warehouse: Warehouse, ds: str) -> Release | None:
    """The newest release of an earlier day, going back from the current one as far as releases are kept.

    A rerun of the current release's day finds the same one as the first run did.
    """
    name = current_id(warehouse)
    while name is not None:
        try:
            manifest = read_manifest(warehouse, name)
        except NoRelease:
            if name == current_id(warehouse):
                raise
            return None
        if manifest["ds"] < ds:
            return Release.open(warehouse, name)
        name = manifest["parent"]
    return None


def all_ids(warehouse: Warehouse) -> list[str]:
    """Ids of the releases that are there, oldest day first."""
    return [name for name in warehouse.storage.folders(FOLDER) if ID.fullmatch(name)]


def _current(warehouse: Warehouse) -> str:
    name = current_id(warehouse)
    if name is None:
        raise ReleaseError(f"{warehouse.uri}: seen no current release; run the DAG or the publish job first")
    return name
