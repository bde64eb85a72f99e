"""A release made by the real jobs from the warehouse day of :mod:`tests.small_model`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hymirec_model.config import EvaluationConfig, IndexConfig
from jobs import build_index, choose_model, publish
from jobs.evaluate import evaluate
from jobs.export_interests import export_interests
from jobs.platform import cli
from jobs.platform.releases import Release
from jobs.platform.user_histories import UserHistories
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Warehouse
from tests.small_day import newest_space_version, profile, write_encoder
from tests.small_model import DAY, write_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def publish_day(spark: SparkSession, folder: Path, merge: str = "lse", types: tuple[str, ...] = ("flat",)) -> Release:
    """Evaluate, export, index and publish 40 users and 300 items; the warehouse lies in `folder`."""
    wh = Warehouse(str(folder / "warehouse"))
    write_encoder(wh, DAY)
    write_day(wh, merge=merge, space_version=newest_space_version(wh, DAY))
    gate = "{min_ratio_to_popularity: 0, min_coverage_ratio: 0, max_interest_cosine: 1, min_index_recall: 0.5}"
    options = ["--warehouse", wh.uri, "--ds", DAY, "--profile", profile(folder, gate=gate)]
    histories, parts = wh.partition("histories", DAY), ModelParts.find(wh, DAY)
    evaluate(wh, DAY, EvaluationConfig(bootstrap=20), histories, parts)
    _run(choose_model.main, options)
    export_interests(spark, wh, DAY, UserHistories.find(wh, DAY), parts)
    index = IndexConfig(queries=60, neighbours=20, types=types)  # type: ignore[arg-type]
    build_index.build(wh, DAY, index, *build_index.find_inputs(wh, DAY))
    _run(publish.main, options)
    return Release.open(wh)


def _run(job: Callable[..., None], options: list[str]) -> None:
    with pytest.raises(SystemExit) as done:
        cli.run(job, options)
    assert done.value.code == 0
