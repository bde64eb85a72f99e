"""What this machine offers where nobody says otherwise: a folder for state, a Java for Spark; and its code's version.

Standard library only: infra/local_env.py, which every local command starts with, reads it too.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder that holds all state: HYMIREC_STATE, or ``var`` in the repository."""
    given = (os.environ if environment is None else environment).get("HYMIREC_STATE")
    return Path(given or REPOSITORY / "var").absolute()


def packaged_java() -> Path | None:
    """Return the JAVA_HOME that infra/setup.sh made where there is no Java 17 or newer, else None."""
    home = Path(sys.prefix) / "java"
    return home if home.exists() else None


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the code that runs, None outside of a git work tree."""
    command = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
