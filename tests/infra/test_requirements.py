"""What is pinned is what is locked and what is installed."""

from __future__ import annotations

import re
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)(?:\s+#.*)?$")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def direct(repository: Path) -> dict[str, str]:
    found = {}
    for line in (repository / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = PIN.match(line)
            assert pin, f"not pinned exactly: {line}"
            found[normal(pin[1])] = pin[2]
    return found


@pytest.fixture(scope="module")
def locked(repository: Path) -> dict[str, str]:
    text = (repository / "requirements.lock").read_text()
    return {normal(name): pinned for name, pinned in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", text, re.M)}


def test_every_direct_dependency_is_locked_at_its_version(direct: dict[str, str], locked: dict[str, str]) -> None:
    assert {name: locked.get(name) for name in direct if name != "torch"} == {
        name: pinned for name, pinned in direct.items() if name != "torch"
    }


def test_lock_is_portable(repository: Path, locked: dict[str, str]) -> None:
    text = (repository / "requirements.lock").read_text()
    assert not [name for name in locked if re.match(r"torch$|triton$|nvidia-|cuda-", name)]
    content = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"https?:|file:|--(?:extra-)?index|--find-links|\s@\s", content)


def test_every_locked_package_has_hashes(repository: Path, locked: dict[str, str]) -> None:
    entries = re.split(r"^(?=[A-Za-z0-9])", (repository / "requirements.lock").read_text(), flags=re.M)[1:]
    assert len(entries) == len(locked) > 100
    assert not [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry]


def test_the_environment_is_the_locked_one(locked: dict[str, str]) -> None:
    assert {name: version(name) for name in locked} == locked


@pytest.mark.parametrize("package", ["airflow", "mlflow", "pyspark", "transformers"])
def test_packages_have_their_bytecode(package: str) -> None:
    """Set-up compiles them; a process that may not write bytecode would compile them each time."""
    spec = find_spec(package)
    assert spec is not None and spec.cached is not None and Path(spec.cached).is_file()
