"""Write requirements.lock: every package with its hashes, torch apart. Run it as ``make lock``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
LOCK = REPOSITORY / "requirements.lock"
HEADER = """\
# Every package with its hashes, made from requirements.txt by `make lock`; do not edit.
# Installed by `make setup` without looking at dependencies again. torch and its CUDA libraries are not in it:
# which build fits depends on the machine.
"""


def main(arguments: list[str]) -> int:
    """Resolve requirements.txt; versions that are locked already stay unless ``--upgrade`` is given."""
    command = [
        *(str(Path(sys.prefix) / "bin" / "uv"), "pip", "compile", "requirements.txt"),
        *("--python-version", "3.11", "--generate-hashes", "--no-emit-package", "torch"),
        *("--no-header", "--no-emit-index-url", "--no-emit-find-links", "--quiet"),
        *("--output-file", str(LOCK), *arguments),
    ]
    status = subprocess.run(command, cwd=REPOSITORY, check=False).returncode
    if status == 0:
        LOCK.write_text(HEADER + LOCK.read_text())
        print(f"{LOCK.name}: {LOCK.read_text().count('==')} packages")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
