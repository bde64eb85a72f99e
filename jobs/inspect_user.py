"""Show one user of a release: newest events, each interest by its nearest titles, what would be retrieved.

Reads the release (its interests, items and index) and ``histories`` of its day. Writes nothing.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.platform import cli
from jobs.platform.explain import explain, render
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse


def main(
    user: Annotated[str, typer.Argument(metavar="USER", help="user_id.", show_default=False)],
    warehouse: cli.WarehouseOption,
    release: Annotated[
        str | None,
        typer.Option("--release", metavar="ID", help="Default: the current one.", show_default=False),
    ] = None,
) -> None:
    """Show one user of a release: history, interests by their nearest titles, and what would be retrieved."""
    wh = Warehouse(warehouse)
    cli.console().print(render(explain(wh, Release.open(wh, release), user)))


if __name__ == "__main__":
    cli.run(main)
