"""Where state lies when nobody says otherwise, and when somebody does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.platform import tracking
from jobs.platform.local import state_folder


def test_state_lies_in_the_repository_unless_told(repository: Path, tmp_path: Path) -> None:
    assert state_folder({}) == state_folder({"HYMIREC_STATE": ""}) == repository / "var"
    assert state_folder({"HYMIREC_STATE": str(tmp_path)}) == tmp_path


def test_mlflow_and_models_lie_in_it(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYMIREC_STATE", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    script = "from jobs.platform.training import MODELS; print(MODELS)"
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "models")
