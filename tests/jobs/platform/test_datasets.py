from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.platform import datasets, tracking
from jobs.platform.datasets import dataset
from jobs.platform.warehouse import Partition, Warehouse

DAY = "2020-03-20"


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    return Warehouse(str(tmp_path / "warehouse"))


def written(wh: Warehouse, users: int = 3, **facts: int) -> Partition:
    kinds: list[tuple[str, pa.DataType]] = [
        ("user_id", pa.string()),
        ("items", pa.list_(pa.int32())),
        ("vector", pa.list_(pa.float16(), 2)),
        ("at", pa.timestamp("us")),
        ("fine", pa.bool_()),
        ("both", pa.struct([("n", pa.int64()), ("w", pa.float64())])),
    ]
    schema = pa.schema(kinds)
    with wh.write_partition("histories", DAY) as part:
        part.write_table(pa.Table.from_pylist([{"user_id": str(n)} for n in range(users)], schema), "b=0/part.parquet")
        part.info |= {"events": 9, "lineage": "x"} | facts
    return wh.partition("histories", DAY)


def test_a_partition_is_told_by_its_footer_and_facts(wh: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    partition = written(wh)
    monkeypatch.setattr(wh, "read", None)  # nothing reads the table
    found = dataset(wh, partition)
    assert found.name == "histories" and found.source_type == "local"
    assert json.loads(found.source) == {"uri": f"{wh.uri}/{partition.folder}"}
    profile = json.loads(found.profile or "")
    assert profile == {"num_rows": 3, "events": 9, "num_files": 1, "num_bytes": sum(partition.files.values())}
    columns = {column["name"]: column for column in json.loads(found.schema or "")["mlflow_colspec"]}
    assert [columns[name]["type"] for name in ("user_id", "at", "fine")] == ["string", "datetime", "boolean"]
    assert columns["items"]["items"]["type"] == "integer" and columns["vector"]["items"]["type"] == "float"
    assert {name: about["type"] for name, about in columns["both"]["properties"].items()} == {
        "n": "long",
        "w": "double",
    }


def test_digest_tells_content_and_not_attempts_apart(wh: Warehouse) -> None:
    first = datasets.digest(written(wh))
    again = wh.partition("histories", DAY)
    assert datasets.digest(written(wh)) == first and wh.partition("histories", DAY).folder != again.folder
    assert datasets.digest(written(wh, events=8)) != first
    assert datasets.digest(written(wh, users=4)) != first


def test_input_tables_have_rows_if_somebody_counted(warehouse: Warehouse, put_events: Callable[..., Path]) -> None:
    put_events(DAY, [{"user_id": "u", "item_id": "i", "timestamp": 1}])
    events = warehouse.partition("events", DAY)
    assert "num_rows" not in json.loads(dataset(warehouse, events).profile or "")
    assert json.loads(dataset(warehouse, events, 1).profile or "")["num_rows"] == 1


def test_a_run_names_what_it_read_however_often_it_is_told(wh: Warehouse) -> None:
    partition = written(wh)
    with tracking.stage("first", ds=DAY, refresh_id="datasets") as run:
        for _ in range(2):
            run.inputs([dataset(wh, partition)], "training")
            run.refresh.inputs([dataset(wh, partition)], "input")
    for run_id, context in ((run.run_id, "training"), (run.refresh.run_id, "input")):
        (found,) = tracking.client_().get_run(run_id).inputs.dataset_inputs
        assert found.dataset.digest == datasets.digest(partition)
        assert {tag.key: tag.value for tag in found.tags} == {"mlflow.data.context": context}
