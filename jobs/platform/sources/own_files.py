"""Columns of the user's own files: ours by name, or by the user's name for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jobs.platform.contracts import Contract
from jobs.platform.errors import JobError, SchemaError
from jobs.platform.sources.shape import Given

OPTIONS = {"events": "columns", "items": "item-columns"}
"""Option by which the user names the columns of each table."""


def parse_columns(option: str, text: str | None, contract: Contract) -> dict[str, str]:
    """Read ``ours=theirs,ours=theirs``.

    Raises
    ------
    JobError
        If it is written otherwise, or names a column that we do not have.
    """
    known = [column.name for column in contract]
    found: dict[str, str] = {}
    for part in filter(None, (text or "").split(",")):
        ours, sign, theirs = (word.strip() for word in part.partition("="))
        if not sign or not theirs or ours not in known or ours in found:
            raise JobError(
                f"--{option}: seen {part!r}; allowed: OURS=YOURS,OURS=YOURS with each of {', '.join(known)} once"
            )
        found[ours] = theirs
    return found


def need_events(given: Given, source: str) -> str:
    """The path of the events, which an own source cannot do without."""
    if not given.events:
        raise JobError(f"--source {source} needs files: seen no events; allowed: --events PATH and --items PATH")
    return given.events


def names_in_file(
    table: str, header: Collection[str], contract: Contract, columns: Mapping[str, str], file: str
) -> dict[str, str]:
    """Columns of the contract that a file has, and their names there.

    Raises
    ------
    SchemaError
        If one is missing that has to be there, or that the user has named; or if it is there twice.
    """
    found = {}
    for column in contract:
        name = columns.get(column.name, column.name)
        count = list(header).count(name)
        if count > 1:
            raise SchemaError(table, name, "several columns of this name", "one", file)
        if count:
            found[column.name] = name
        elif column.required or column.name in columns:
            seen = f"no such column among {', '.join(header)}"
            option = OPTIONS[table]
            allowed = f"this column, or --{option} {column.name}=YOURS with its name in the file"
            raise SchemaError(table, name, seen, allowed, file)
    return found


def say_unused(table: str, names: Collection[str]) -> None:
    """Print which columns of the files are left out."""
    if names:
        print(f"{table}: columns that are not used: {', '.join(sorted(names))}")
