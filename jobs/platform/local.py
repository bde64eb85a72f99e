"""What this machine offers where nobody says otherwise: a folder for state, and a Java for Spark.

Standard library only: infra/local_env.py, which every local command starts with, reads it too.
"""

from __future__ import annotations

import os
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
