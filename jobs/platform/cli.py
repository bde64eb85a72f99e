"""Command line that all jobs share: typed options, one-line errors, exit codes.

Exit codes: 0 done or nothing to do, 2 bad input that the message explains, 75 something outside that may be back at a
retry, 143 ended by SIGTERM, 1 an unexpected error (with a traceback).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hymirec_model.errors import HymirecError
from jobs.platform.errors import JobError
from jobs.platform.names import DRIFT, PROMOTE, RECODE, RETRAIN, is_day

if TYPE_CHECKING:
    from rich.console import Console

_DAMAGED = ("input", "allowed: an undamaged file; import it again", JobError.exit_code)
_CAUSES = {
    os.strerror(errno.ENOSPC): ("disk", "allowed: room for what the job writes; free some and run it again", 75),
    "AWS Error NETWORK_CONNECTION": ("store", "allowed: an answer; look at AWS_ENDPOINT_URL, and run it again", 75),
    "AWS Error ACCESS_DENIED": ("store", "allowed: credentials that may list, read, write and delete there", 2),
    "[FAILED_READ_FILE.FILE_NOT_EXIST": ("input", "allowed: files that stay while they are read; run it again", 75),
    "[FAILED_READ_FILE": _DAMAGED,
    "Truncated compressed stream": _DAMAGED,
    "zlib inflate failed": _DAMAGED,
}
"""What errors of other libraries say, and from it: where it is, what to do, and the exit code."""
_SHOWN = 200  # characters of such an error around these words
FILE_WIDTH = 120  # columns of a table that is not shown on a terminal


def check_ds(value: str) -> str:
    """Return ``value`` if it is a day written YYYY-MM-DD, else raise a usage error."""
    if is_day(value):
        return value
    raise typer.BadParameter(f"seen {value!r}; allowed: a day written YYYY-MM-DD, such as 2017-12-24")


def choice(name: str, words: tuple[str, ...], text: str) -> Any:
    """An option that takes one of some words."""

    def check(value: str | None) -> str | None:
        if value not in (None, *words):
            raise typer.BadParameter(f"seen {value!r}; allowed: {', '.join(words)}")
        return value

    return typer.Option(name, metavar="|".join(words), help=text, callback=check, show_default=False)


WarehouseOption = Annotated[
    str,
    typer.Option(
        "--warehouse",
        metavar="URI",
        help="Warehouse: a local folder or an s3a://, gs:// or hdfs:// URI.",
        show_default=False,
    ),
]
DsOption = Annotated[
    str,
    typer.Option(
        "--ds",
        metavar="YYYY-MM-DD",
        help="Day (UTC) of the partition to work on.",
        callback=check_ds,
        show_default=False,
    ),
]
ProfileOption = Annotated[
    str,
    typer.Option("--profile", metavar="NAME|PATH", help="Profile in infra/profiles, or a path to a YAML file."),
]
RefreshIdOption = Annotated[
    str | None,
    typer.Option(
        "--refresh-id",
        metavar="ID",
        help="Groups the MLflow runs of one refresh (default: manual-<ds>).",
        show_default=False,
    ),
]
RetrainOption = Annotated[str | None, choice("--retrain", RETRAIN, "Overrides the profile's retrain.")]
RecodeOption = Annotated[
    str | None,
    choice(
        "--recode",
        RECODE,
        "always: fit a new codebook, which merges its generations and changes the codes of all items.",
    ),
]
DriftOption = Annotated[str | None, choice("--drift", DRIFT, "Overrides the profile's contract.drift.")]
PromoteOption = Annotated[str | None, choice("--promote", PROMOTE, "Overrides the profile's promote.")]


def refresh_id_or_default(refresh_id: str | None, ds: str) -> str:
    """Return ``refresh_id``, or ``manual-<ds>`` for a job that is run by hand."""
    return refresh_id or f"manual-{ds}"


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent process dies (Linux only).

    Airflow ends spark-submit's JVM on a timeout; without this the Python driver would live on and write.
    """
    if sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        os.kill(os.getpid(), signal.SIGTERM)


def unwind_on_sigterm() -> None:
    """Turn the first SIGTERM into SystemExit(143): MLflow runs are closed and half-written partitions removed."""

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut that short
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)


def console() -> Console:
    """Console for tables: as wide as the terminal, and wide enough for all their columns in a file or a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH)


def run(main: Callable[..., Any], argv: list[str] | None = None) -> None:
    """Run ``main`` as a command with the options of its signature, then exit the process.

    Parameters
    ----------
    main : callable
        Function with typer-annotated parameters; its docstring is the help text.
    argv : list of str, optional
        Arguments without the program's name (default: those of this process).
    """
    if argv is None:
        unwind_on_sigterm()
        end_with_parent()
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(context_settings={"help_option_names": ["-h", "--help"]})(main)
    try:
        app(args=argv, prog_name=f"python -m {_module(main)}")
    except HymirecError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(error.exit_code if isinstance(error, JobError) else JobError.exit_code) from None
    except Exception as error:
        # Python, Spark, Arrow, faiss and safetensors each raise errors of their own, but hand these words on.
        for words, (where, advice, exit_code) in _CAUSES.items():
            line = next((line.strip() for line in str(error).splitlines() if words in line), None)
            if line is not None:
                at = line.index(words)
                seen = line[max(0, at - _SHOWN) : at + _SHOWN]
                print(f"error: {where}: seen {seen}; {advice}", file=sys.stderr, flush=True)
                raise SystemExit(exit_code) from None
        raise


def _module(main: Callable[..., Any]) -> str:
    """Name of the job for the usage line; a job that runs as a script is ``__main__``."""
    spec = getattr(sys.modules.get(main.__module__), "__spec__", None)
    return spec.name if spec is not None else main.__module__
