"""An audit that could not look everything up is no clean one."""

from __future__ import annotations

from importlib.metadata import version

from infra.audit import judge, pins

CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited: rich (15.0.0)"}
BAD = {"name": "x", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}]}


def test_everything_that_is_installed_is_audited() -> None:
    found = dict(pin.split("==") for pin in pins())
    assert len(found) > 100
    assert {name: found[name] for name in ("torch", "numpy", "uv")} == {
        name: version(name).partition("+")[0] for name in ("torch", "numpy", "uv")
    }


def test_clean() -> None:
    assert judge({"dependencies": [CLEAN]}, 1) == (["0 known vulnerabilities in 1 of 1 packages"], 0)


def test_a_vulnerability_is_named_with_what_mends_it() -> None:
    lines, code = judge({"dependencies": [CLEAN, BAD]}, 2)
    assert code == 1 and lines[0] == "x 1.0: PYSEC-1, mended in 1.1"


def test_what_could_not_be_looked_up_is_an_error() -> None:
    for report, wanted in (({"dependencies": [SKIPPED, CLEAN]}, 2), ({"dependencies": [CLEAN]}, 2)):
        lines, code = judge(report, wanted)
        assert code == 2 and lines[-1].startswith("error: audit: seen 1 of 2 packages that could not be looked up (")
