"""Where a warehouse lives: one small set of file operations for a local folder and for object stores.

Paths inside a :class:`Storage` are relative to the warehouse's root and use ``/``.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from jobs.platform.errors import WarehouseError
from jobs.platform.parquet_footer import sort_encodings

_SCHEMES = ("file", "s3", "s3a", "gs", "hdfs")
_THREADS = 16
_ABANDONED_SECONDS = 24 * 3600


class Storage:
    """Files under one root.

    Parameters
    ----------
    uri : str
        A local path, or a URI with one of the schemes file, s3, s3a, gs, hdfs.
    filesystem : pyarrow.fs.FileSystem, optional
        Filesystem to use in place of the one that the URI names (its paths are the URI's host and path).

    Attributes
    ----------
    uri : str
        The root as Spark wants it: an absolute path, or ``s3a://…``, ``gs://…``, ``hdfs://…``.
    root : str
        The root as ``filesystem`` wants it.
    local : pathlib.Path or None
        The root when it is a folder of this machine.
    """

    def __init__(self, uri: str, filesystem: pafs.FileSystem | None = None) -> None:
        parts = urlsplit(uri)
        scheme = parts.scheme if "://" in uri else ""
        if not uri or (scheme and scheme not in _SCHEMES):
            raise WarehouseError(f"warehouse URI: seen {uri!r}; allowed: a folder or a URI of {', '.join(_SCHEMES)}")
        self.local: Path | None = None
        self.filesystem: pafs.FileSystem
        if scheme in ("", "file"):
            self.local = Path(os.path.abspath(Path(parts.path if scheme else uri).expanduser()))
            self.filesystem, self.root, self.uri = pafs.LocalFileSystem(), str(self.local), str(self.local)
            return
        spark_scheme = {"s3": "s3a"}.get(scheme, scheme)
        self.uri = f"{spark_scheme}://{parts.netloc}{parts.path}".rstrip("/")
        if filesystem is not None:
            self.filesystem, self.root = filesystem, f"{parts.netloc}{parts.path}".strip("/")
            return
        on_s3 = spark_scheme == "s3a"
        address = uri.replace("s3a://", "s3://", 1)
        if on_s3:  # a small file by one request instead of three, and nothing of it stays if the writer dies
            address += ("&" if parts.query else "?") + "allow_delayed_open=true"
        try:
            self.filesystem, self.root = pafs.FileSystem.from_uri(address)
        except (OSError, ValueError) as error:
            raise WarehouseError(f"warehouse URI: {uri!r} cannot be opened: {error}") from error
        # In a bucket that does not exist every file is missing, and a table without data is what a job would report.
        if on_s3 and self.filesystem.get_file_info(parts.netloc).type != pafs.FileType.Directory:
            raise WarehouseError(
                f"warehouse URI: seen {uri!r}, and no bucket {parts.netloc}; allowed: a bucket that exists; create it, "
                "or look at AWS_ENDPOINT_URL and AWS_REGION"
            )

    def path(self, *names: str) -> str:
        """Path of a file as ``filesystem`` wants it."""
        return "/".join((self.root, *names))

    def spark_path(self, *names: str) -> str:
        """Path of a file as Spark wants it."""
        return "/".join((self.uri, *names))

    def files(self, folder: str) -> dict[str, int]:
        """Bytes of each data file below ``folder``, keyed by path relative to it.

        Bookkeeping files (a part of the path starts with ``.`` or ``_``) and empty files are left out.
        """
        return {name: info.size for name, info in self._walk(folder) if _is_data(name) and info.size > 0}

    def folders(self, folder: str) -> list[str]:
        """Sorted names of the folders directly in ``folder``; empty if there is none."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)

    def existing(self, paths: list[str]) -> list[bool]:
        """Tell for each path whether it is a file."""
        infos = self.filesystem.get_file_info([self.path(path) for path in paths])
        return [info.type == pafs.FileType.File for info in infos]

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None if there is no such file."""
        try:
            with self.filesystem.open_input_stream(self.path(path)) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    def replace(self, path: str, data: bytes) -> None:
        """Write a small file so that readers see the old bytes or the new ones, never a part of them.

        Locally by a rename; on an object store by one PUT, or by an upload in parts that appears when it is complete.
        Of two that replace it at once the last one counts.
        """
        if self.local is None:
            with self.filesystem.open_output_stream(self.path(path)) as stream:
                stream.write(data)
            return
        target = self.local / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        make_durable(target.parent)

    def settle(self, folder: str) -> None:
        """Make a finished folder's files durable and their names reproducible.

        Spark puts a random id into the names of its part files; they become ``part-00000.parquet`` and on,
        in the order of Spark's own numbers. Spark's bookkeeping files are removed.
        """
        names = sorted(name for name, _ in self._walk(folder))
        for name in (n for n in names if not _is_data(n)):
            self.filesystem.delete_file(self.path(folder, name))
        moves: list[tuple[str, str]] = []
        numbers: dict[str, int] = {}
        for name in filter(_is_data, names):
            parent, _, base = name.rpartition("/")
            if base.startswith("part-") and base.endswith(".parquet") and base.count("-") > 1:
                number = numbers.get(parent, 0)
                numbers[parent] = number + 1
                new = f"part-{number:05d}.parquet"
                moves.append((name, f"{parent}/{new}" if parent else new))

        def move(pair: tuple[str, str]) -> None:
            self.filesystem.move(self.path(folder, pair[0]), self.path(folder, pair[1]))

        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(move, moves))
        if self.local is not None:
            for name in self.files(folder):
                path = self.local / folder / name
                if path.suffix == ".parquet":
                    sort_encodings(path)
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def upload(self, source: Path, folder: str) -> None:
        """Copy a local folder's files into ``folder``."""
        self.filesystem.create_dir(self.path(folder), recursive=True)
        pafs.copy_files(str(source), self.path(folder), pafs.LocalFileSystem(), self.filesystem)

    def download(self, folder: str, target: Path) -> None:
        """Copy ``folder`` into a local folder that appears only when complete."""
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        temporary.mkdir(parents=True)
        try:
            pafs.copy_files(self.path(folder), str(temporary), self.filesystem, pafs.LocalFileSystem())
            try:
                temporary.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was first with the same files
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def remove(self, folder: str) -> None:
        """Remove a folder with all that is in it, if it is there."""
        if self.filesystem.get_file_info(self.path(folder)).type == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path(folder))

    def remove_file(self, path: str) -> None:
        """Remove a file, if it is there."""
        if self.existing([path])[0]:
            self.filesystem.delete_file(self.path(path))

    def put(self, source: str, folder: str, names: Collection[str]) -> None:
        """Put a finished folder in the place of another; after a crash the same call finishes it.

        Locally by renames, between which a reader finds no folder for an instant. An object store has none: the
        new files come before the old ones go, and a reader may see both for a while.

        Parameters
        ----------
        source, folder : str
        names : collection of str
            Files of the finished folder, with those that a call before has moved.
        """
        if self.local is not None:
            if not (self.local / source).exists():
                return
            old, new = self.local / f"{source}.old", self.local / folder
            new.parent.mkdir(parents=True, exist_ok=True)
            if new.exists():
                new.rename(old)
            (self.local / source).rename(new)
            shutil.rmtree(old, ignore_errors=True)
            return
        self.filesystem.create_dir(self.path(folder), recursive=True)
        for name in self.files(source):
            self.filesystem.move(self.path(source, name), self.path(folder, name))
        for name, _ in self._walk(folder):
            if name not in names:
                self.filesystem.delete_file(self.path(folder, name))
        self.remove(source)

    def sync(self, folder: str) -> None:
        """Make what :meth:`put` has moved in a folder durable."""
        if self.local is not None:
            make_durable(self.local / folder)

    def abandoned(self, folder: str) -> bool:
        """Tell whether nothing in a folder has changed for a day: whoever was writing it is gone.

        A folder of an object store has no time but those of its files: without any, somebody may be about to write it.
        """
        base = self.path(folder)
        inside = self.filesystem.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
        infos = [self.filesystem.get_file_info(base), *inside]
        times = [info.mtime.timestamp() for info in infos if info.mtime is not None]
        return bool(times) and time.time() - max(times) > _ABANDONED_SECONDS

    def _walk(self, folder: str) -> list[tuple[str, pafs.FileInfo]]:
        base = self.path(folder)
        selector = pafs.FileSelector(base, recursive=True, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return [(info.path[len(base) :].lstrip("/"), info) for info in infos if info.type == pafs.FileType.File]


def _is_data(name: str) -> bool:
    return not any(part.startswith((".", "_")) for part in name.split("/"))


def make_durable(path: Path) -> None:
    """Have a file, or a folder's list of names, outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
