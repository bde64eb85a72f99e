from __future__ import annotations

import inspect
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from jobs.platform.recommend import Recommended
from jobs.platform.releases import Release
from jobs.platform.signature import mlmodel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "MLmodel").write_text(mlmodel(["recommender", "codebook"]))
    return tmp_path


def test_signature_is_that_of_recommending(folder: Path) -> None:
    signature = Model.load(str(folder)).signature
    assert signature.inputs.input_names() == ["events"]
    (places,) = signature.outputs.to_dict()
    assert list(places["items"]["properties"]) == sorted(Recommended._fields)
    known = inspect.signature(Release.recommend_events).parameters
    assert {param.name: param.default for param in signature.params} == {
        name: known[name].default for name in ("n", "exclude_seen", "diversity")
    }


def test_mlflow_cannot_load_it(folder: Path) -> None:
    with pytest.raises(MlflowException, match="python_function"):
        mlflow.pyfunc.load_model(str(folder))
