"""Errors of the jobs: each names what was seen, what is allowed and what to do."""

from __future__ import annotations

from hymirec_model.errors import HymirecError


class JobError(HymirecError):
    """A job cannot go on; the command line prints it as one line and exits with ``exit_code``."""

    exit_code = 2
    """2: bad input, which does not mend itself; Airflow does not try again."""


class WarehouseError(JobError):
    """The warehouse URI, a table name or a partition's state is not usable."""


class MissingPartition(WarehouseError):
    """A partition that a job reads does not exist.

    Parameters
    ----------
    table, ds : str
        The partition that was asked for (``ds`` is empty for a table without days).
    newest : str or None
        Newest partition of that table that does exist.
    hint : str
        What to do about it.
    """

    def __init__(self, table: str, ds: str, newest: str | None, hint: str) -> None:
        wanted = f"{table}/ds={ds}" if ds else table
        seen = f"newest there is ds={newest}" if newest else "the table has no data yet"
        super().__init__(f"missing partition {wanted}: {seen}; {hint}")
        self.table = table
        self.ds = ds
        self.newest = newest


class ImportUnfinished(WarehouseError):
    """An import is complete, but not all of it is in its place yet."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: a retry may find it there


class SchemaError(JobError):
    """A column is missing or has a type that the contract does not allow."""

    def __init__(self, table: str, column: str, seen: str, allowed: str, where: str = "") -> None:
        place = f" in {where}" if where else ""
        super().__init__(f"table {table}, column {column}: seen {seen}{place}; allowed: {allowed}")
        self.table = table
        self.column = column


class ContractBreach(JobError):
    """More rows broke the contract than the profile allows, or a day is unlike the days before it."""


class GateRefused(JobError):
    """A gate says no: what was made today is not good enough, and nothing of it is published."""


class ProfileError(JobError):
    """A profile is missing, misspelt or holds a value that is not allowed."""


class TrackingError(JobError):
    """MLflow cannot be reached."""

    exit_code = 75  # the input is fine, and a retry may find the server back
