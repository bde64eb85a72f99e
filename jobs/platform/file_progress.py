"""Progress of work that Spark's workers do while the driver waits in one call and hears nothing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from jobs.platform.warehouse import Warehouse


@contextmanager
def file_progress(wh: Warehouse, folder: str, total: int, title: str, seconds: float = 2.0) -> Iterator[None]:
    """Show a progress bar on stderr that counts the files which workers leave in a folder.

    Parameters
    ----------
    wh : Warehouse
    folder : str
        Relative to the warehouse.
    total : int
        Files when all is done.
    title : str
    seconds : float, default=2
        Between two looks.
    """
    over = threading.Event()
    with tqdm(total=total, desc=title, unit="file", file=sys.stderr, mininterval=seconds) as bar:

        def watch() -> None:
            while not over.wait(seconds):
                bar.update(len(wh.storage.files(folder)) - bar.n)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
        bar.update(total - bar.n)
