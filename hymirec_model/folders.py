"""Reading folders that a `save` wrote: whatever else is in them is refused, and nothing in them is ever run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from hymirec_model.errors import HymirecError, InputError


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Give one name to the many errors of damaged or foreign files.

    Parameters
    ----------
    folder : Path
    what : str
        What should be there, with its article.

    Raises
    ------
    InputError
        If the files cannot be read as that.
    """
    try:
        yield
    except HymirecError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        seen = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{folder}: seen files that are not {what} ({seen}); allowed: safetensors and config.json as they were "
            "saved; restore the folder, or run the job that makes it again"
        ) from error
