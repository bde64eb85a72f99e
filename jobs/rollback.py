"""Go back to an earlier release: CURRENT, the aliases in MLflow and the models that later days build on, together.

Reads ``releases/<id>``, every file against its hash. Writes ``releases/CURRENT`` and ``releases/switches``: from which
release to which, who, when and why; and puts the release's models in force again in place of later ones. The model
that was left does not pass the gate again on a later run.

It also switches forward: to a release that was published with ``promote: never``, or from which was rolled back by
mistake. Pause hymirec_refresh before if the cause lies in the data, or tonight's run releases them again.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from jobs.platform import cli, model_choice, registry, releases, switches, tracking
from jobs.platform.deletions import deleted_users
from jobs.platform.manifest import ReleaseError, check_id, read_manifest
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse


@dataclass(frozen=True, slots=True)
class Report:
    """What rollback did."""

    release: Release
    version: str
    """Number of its model."""
    record: dict[str, Any]
    """See :func:`jobs.platform.switches.record`."""
    restored: list[str]
    """Partitions of models that are those of the release again."""
    deleted: int
    """Users of the release who asked to be deleted since."""

    def __str__(self) -> str:
        record = self.record
        left = f" instead of {record['from']['release']}" if record["from"] else ""
        parts = f"\nmodels put back in force: {', '.join(self.restored)}" if self.restored else ""
        deleted = (
            f"\n{self.deleted:,} people of this release have asked to be deleted since: leave them out where it is "
            "served, and run the day again"
        )
        return (
            f"CURRENT: {self.release.id}{left}, by {record['who']}: {record['why']}\n"
            f"{registry.MODEL}: champion is version {self.version}{parts}{deleted if self.deleted else ''}"
        )


def main(
    warehouse: cli.WarehouseOption,
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes on record.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="ID", help="Release to go to (default: the one before the current one)."),
    ] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who; default: the user's login.")] = None,
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Go back to an earlier release: CURRENT, aliases and models together."""
    wh = Warehouse(warehouse)
    who = by or getpass.getuser()
    left, release = find(wh, to, reason)
    refresh = refresh_id or f"rollback-{release.id}"
    with tracking.stage("rollback", ds=release.ds, refresh_id=refresh) as run:
        run.params({"from": left, "to": release.id, "who": who, "why": reason})
        report = roll_back(release, left, who, reason)
        run.text(str(report), "report.txt")
    tracking.end_refresh(refresh)
    print(report)


def find(wh: Warehouse, to: str | None, reason: str) -> tuple[str, Release]:
    """Id of the current release, whose files may be damaged, and the release to go to, which is checked in full.

    Raises
    ------
    ReleaseError
        If there is none, it is damaged, or no reason is given.
    """
    if not reason.strip():
        raise ReleaseError("reason: seen nothing; allowed: why the release is left, in words; it goes on record")
    left = releases.current_id(wh)
    there = [name for name in releases.all_ids(wh) if to or name != left]
    choices = f"allowed with --to: {', '.join(there) or 'none, it is the only one'}"
    if left is None:
        raise ReleaseError(f"releases/CURRENT: seen no current release; {choices}")
    if to:
        target = check_id(to)
    else:
        try:
            target = read_manifest(wh, left)["parent"]
        except ReleaseError as error:
            raise ReleaseError(f"{error}; {choices}") from error
    if target not in there:
        seen = f"to: seen {to}, which is not there" if to else f"release {left} has no release before it any more"
        raise ReleaseError(f"{seen}; {choices}")
    return left, Release.open(wh, target, full=True)


def roll_back(release: Release, left: str, who: str, why: str) -> Report:
    """Switch to `release` and record it; cut short at any point, a second call completes it."""
    version = registry.promote(release)  # first: it needs MLflow, and CURRENT must not move without it
    restored = model_choice.restore_parts(release.warehouse, release)
    entry = switches.record(release, left=left, kind="rollback", who=who, why=why)
    releases.switch(release)  # last: until then a second call without --to finds the same release
    return Report(release, version, entry, restored, deleted_users(release))


if __name__ == "__main__":
    cli.run(main)
