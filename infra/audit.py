"""Known vulnerabilities of the locked packages, by pip-audit: ``make audit``.

Needs a connection to the package index's vulnerability database. pip-audit itself counts a package that it could not
look up as skipped and ends well; here that is an error, or an audit without a connection would find nothing wrong.
Exit codes: 0 nothing known, 1 vulnerabilities, 2 not everything could be audited.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jobs.platform.local import REPOSITORY

_SHOWN = 3


def pins() -> list[str]:
    """``name==version`` of every package that setup installs: the lock, and what the lock leaves out."""
    pinned = re.compile(r"^([A-Za-z0-9_.-]+==[^\s;\\]+)", re.M)
    locked = pinned.findall((REPOSITORY / "requirements.lock").read_text())
    direct = pinned.findall((REPOSITORY / "requirements.txt").read_text())
    return sorted({*locked, *direct})


def judge(report: dict[str, Any], wanted: int) -> tuple[list[str], int]:
    """Lines to print and the exit code for a report of pip-audit.

    Parameters
    ----------
    report : dict
        Its JSON.
    wanted : int
        Packages that should be in it.
    """
    audited = [package for package in report["dependencies"] if "skip_reason" not in package]
    skipped = [package["skip_reason"] for package in report["dependencies"] if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, mended in {', '.join(found['fix_versions']) or 'none'}"
        for package in audited
        for found in package["vulns"]
    ]
    code = 1 if lines else 0
    lines.append(f"{len(lines)} known vulnerabilities in {len(audited)} of {wanted} packages")
    if len(audited) < wanted:
        reasons = "; ".join(skipped[:_SHOWN]) or "they are not in the report"
        lines.append(
            f"error: audit: seen {wanted - len(audited)} of {wanted} packages that could not be looked up ({reasons}); "
            "allowed: none; run it where the package index and its vulnerability database can be reached"
        )
        code = 2
    return lines, code


def main() -> int:
    """Audit, print what was found, and return the exit code."""
    packages = pins()
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "requirements.txt"
        listing.write_text("".join(f"{package}\n" for package in packages))
        command = [sys.executable, "-m", "pip_audit", "-r", str(listing), "--no-deps", "--disable-pip"]
        done = subprocess.run(
            [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False
        )
    try:
        lines, code = judge(json.loads(done.stdout), len(packages))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        lines, code = [f"error: audit: pip-audit gave no report ({last[:300]}); is there a connection?"], 2
    for line in lines:
        print(line, file=sys.stderr if line.startswith("error: ") else sys.stdout)
    return code


if __name__ == "__main__":
    sys.exit(main())
