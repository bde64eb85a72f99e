"""Entry point for spark-submit: ``spark-submit infra/spark_job.py NAME [options of jobs.NAME]``.

A script inside jobs/ would put that folder on ``sys.path``, where jobs/platform shadows the standard
library's module.
"""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def main(argv: list[str]) -> None:
    """Run ``jobs.<argv[0]>`` with the other arguments."""
    jobs = sorted(path.stem for path in (REPO / "jobs").glob("[a-z]*.py"))
    if not argv or not re.fullmatch(r"[a-z_]+", argv[0]) or argv[0] not in jobs:
        print(f"error: job: seen {argv[0] if argv else 'none'}; allowed: {', '.join(jobs)}", file=sys.stderr)
        raise SystemExit(2)
    # Spark put the folder of this script first; the repository is what holds the packages.
    sys.path[:] = [str(REPO), *(p for p in sys.path if Path(p or ".").resolve() != REPO / "infra")]
    name, *sys.argv[1:] = argv
    from jobs.platform import cli

    cli.run(importlib.import_module(f"jobs.{name}").main)


if __name__ == "__main__":
    main(sys.argv[1:])
