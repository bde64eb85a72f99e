"""A release made by the real jobs from the warehouse day of :mod:`tests.small_model`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hymirec_model.config import EvaluationConfig, IndexConfig
from jobs import build_index, publish
from jobs.evaluate import evaluate
from jobs.export_interests import export_interests
from jobs.platform import cli
from jobs.platform.releases import Release
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Warehouse
from tests.small_day import newest_space_version, profile, write_encoder
from tests.small_model import DAY, write_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def publish_day(spark: SparkSession, folder: Path, merge: str = "lse") -> Release:
    """Evaluate, export, index and publish 40 users and 300 items; the warehouse lies in `folder`."""
    wh = Warehouse(str(folder / "warehouse"))
    write_encoder(wh, DAY)
    write_day(wh, merge=merge, space_version=newest_space_version(wh, DAY))
    histories, parts = wh.partition("histories", DAY), ModelParts.find(wh, DAY)
    evaluate(wh, DAY, EvaluationConfig(bootstrap=20), histories, parts)
    export_interests(spark, wh, DAY, histories, parts)
    build_index.build(wh, DAY, IndexConfig(queries=60, neighbours=20), *build_index.find_inputs(wh, DAY))
    gate = "{min_ratio_to_popularity: 0, min_index_recall: 0.5}"
    options = ["--warehouse", wh.uri, "--ds", DAY, "--profile", profile(folder, gate=gate)]
    with pytest.raises(SystemExit) as done:
        cli.run(publish.main, options)
    assert done.value.code == 0
    return Release.open(wh)
