"""Take down who asked to be deleted: from the next refresh on, histories, interests and releases do not hold them.

Writes the input table ``deletions``, which only grows. The next update_histories leaves them out, and with it
training, the interests and the release. It does not touch the log that you keep, nor what earlier days wrote: see
docs/operations.md, "Deletion requests".
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer

from jobs.platform import cli
from jobs.platform.deletions import add_deletions, read_deletions
from jobs.platform.errors import JobError, WarehouseError
from jobs.platform.user_histories import UserHistories
from jobs.platform.warehouse import Warehouse


def main(
    warehouse: cli.WarehouseOption,
    user: Annotated[list[str], typer.Option("--user", metavar="ID", help="Who; may be given several times.")] = [],  # noqa: B006
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PATH", help="Text file with one user id a line.")
    ] = None,
) -> None:
    """Take down who asked to be deleted; from the next refresh on they are left out.

    Writes deletions.
    """
    wh = Warehouse(warehouse)
    before = set(read_deletions(wh).user_ids)
    now = add_deletions(wh, [*user, *(read_ids(file) if file else [])]).user_ids
    new = sorted(set(now) - before)
    print(f"deletions: {len(now):,} people, {len(new):,} of them new; left out from the next refresh on")
    if not new:
        return
    try:
        newest = wh.latest("histories")
        if newest is not None:
            known = UserHistories.find(wh, newest.ds).users(new, []).num_rows
            print(f"of the new ones {known:,} have a history on {newest.ds}; an id that has none may be misspelt")
    except (WarehouseError, pa.ArrowException, OSError) as error:  # the request itself is kept
        print(f"whether the new ones have a history, or are misspelt, could not be checked: {error}")


def read_ids(file: Path) -> list[str]:
    """User ids of a text file, one a line; blank lines do not count.

    Raises
    ------
    JobError
        If it is no text file.
    """
    try:
        return [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"--file {file}: seen {error}; allowed: a text file in UTF-8, one user id a line") from error


if __name__ == "__main__":
    cli.run(main)
