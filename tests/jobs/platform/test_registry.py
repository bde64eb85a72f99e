"""Aliases of the model's versions; tests/jobs has what publish and choose_model make of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from jobs.platform import registry
from jobs.platform.errors import TrackingError
from jobs.platform.gate import Verdict
from jobs.platform.registry import Version
from tests.integration.services import free_port


def release(number: str) -> Any:
    """What registry reads of a release whose model is the version of this number."""
    return SimpleNamespace(id=f"release {number}", manifest={"mlflow": {"fingerprint": f"f{number}"}})


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Of an MLflow with two versions."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient()
    client.create_registered_model(registry.MODEL)
    for number in ("1", "2"):
        client.create_model_version(registry.MODEL, str(tmp_path), tags={"hymirec.fingerprint": f"f{number}"})
    return client


def test_the_champion_before_is_kept_though_a_switch_was_cut_short(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert registry.named_releases() == {} and registry.promote(release("1")) == "1"
    with monkeypatch.context() as patch:
        whole = MlflowClient.set_registered_model_alias

        def cut(self: MlflowClient, name: str, alias: str, version: str) -> None:
            if alias == registry.CHAMPION:
                raise OSError("killed")
            whole(self, name, alias, version)

        patch.setattr(MlflowClient, "set_registered_model_alias", cut)
        with pytest.raises(OSError, match="killed"):
            registry.promote(release("2"))
    assert registry.promote(release("2")) == "2"
    assert registry.named_releases() == {registry.CHAMPION: "release 2", registry.PREVIOUS: "release 1"}


def test_the_champion_does_not_challenge_itself(client: MlflowClient) -> None:
    registry.promote(release("1"))
    registry.challenge(Version("1", "f1"), Verdict(()), {})
    assert registry.CHALLENGER not in registry.named_releases()
    assert "hymirec.gate" not in client.get_model_version(registry.MODEL, "1").tags


def test_a_release_of_another_mlflow_is_named(client: MlflowClient) -> None:
    with pytest.raises(TrackingError, match="seen no version of hymirec with the fingerprint f3, which release"):
        registry.promote(release("3"))


def test_an_mlflow_that_is_away_is_not_one_without_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(MlflowException):
        registry.named_releases()
