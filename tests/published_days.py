"""Days that are published: the tables of a small day by the real jobs from the codebook on, and the job itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from hymirec_model.config import CodebookConfig, IndexConfig
from jobs.build_index import build
from jobs.build_index import find_inputs as index_inputs
from jobs.encode_items import encode_items
from jobs.encode_items import find_inputs as codes_inputs
from jobs.fit_codebook import find_inputs as codebook_inputs
from jobs.fit_codebook import fit_codebook
from jobs.platform import cli
from jobs.platform.profile import Profile
from jobs.platform.spark import session
from jobs.platform.warehouse import Warehouse
from jobs.publish import main
from tests.small_day import (
    info,
    item_vectors,
    newest_space_version,
    profile,
    write_evaluation,
    write_interests,
    write_items,
)
from tests.small_model import table, write_histories

DAY, NEXT = "2020-03-20", "2020-03-21"
VECTORS = item_vectors(600)
CODEBOOK = CodebookConfig(layers=4, size=32, iterations=5)


def derive(wh: Warehouse, ds: str, items: int = len(VECTORS)) -> None:
    """Run the real jobs between item vectors and publish."""
    write_histories(wh, table(40, items), ds)
    settings = Profile(name="small", codebook=CODEBOOK)
    fit_codebook(wh, ds, settings, codebook_inputs(wh, ds, CODEBOOK))
    encode_items(session("tests"), wh, ds, codes_inputs(wh, ds), CODEBOOK, settings.gate)
    build(wh, ds, IndexConfig(queries=60, neighbours=20), *index_inputs(wh, ds))


def write_day(wh: Warehouse, ds: str, users: int = 40, model: float = 0.3, arrivals: np.ndarray = VECTORS[:0]) -> None:
    version = info(wh, "recommender", ds)["model_version"]
    vectors, first_ds = np.concatenate([VECTORS, arrivals]), ["2020-03-01"] * 600 + [ds] * len(arrivals)
    write_items(wh, ds, vectors, first_ds, space_version=newest_space_version(wh, ds))
    write_interests(wh, ds, users, model_version=version)
    write_evaluation(wh, ds, model, model_version=version)
    derive(wh, ds, len(vectors))


def publish(wh: Warehouse, tmp_path: Path, ds: str = DAY, **sections: str) -> int:
    arguments = ["--warehouse", wh.uri, "--ds", ds, "--profile", profile(tmp_path, **sections)]
    with pytest.raises(SystemExit) as ended:
        cli.run(main, arguments)
    return int(ended.value.code or 0)


def alias(name: str) -> str | None:
    try:
        return str(MlflowClient().get_model_version_by_alias("hymirec", name).version)
    except MlflowException:
        return None
