"""embed_catalog killed halfway: a rerun takes over what is done, and leaves the bytes of an undisturbed run."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.fault_day import Day, Process, seen, wait_until
from hymirec_model.config import EncoderConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.weights import resolve
from jobs.platform.warehouse import Warehouse
from tests.jobs.counted_embedding import SLICE_TEXTS
from tests.jobs.test_embed_catalog import write_catalog, write_encoder

TEXTS, WORKERS = 24 * SLICE_TEXTS, 2


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("embedding")
    found = Day(folder / "warehouse", folder / "state")
    found.state.mkdir()
    wh = Warehouse(str(found.warehouse))
    encoder = ContentEncoder.from_pretrained(EncoderConfig(), resolve("minilm-l6", folder))
    write_encoder(wh, found.ds, encoder, "v1")
    write_catalog(wh, found.ds, [f"a box of tea, number {number % TEXTS}" for number in range(2 * TEXTS)])
    return found


def start(day: Day, log: Path) -> Process:
    command = [sys.executable, "-m", "tests.jobs.counted_embedding", str(log)]
    return Process([*command, "--warehouse", str(day.warehouse), "--ds", day.ds], day.env())


def finish(process: Process) -> str:
    assert process.wait() == 0, process.output()[-3000:]
    return process.output()


def slices(log: Path) -> list[str]:
    """Slices that workers began to embed, each worker with one encoder."""
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert {loads for _, loads, _ in lines} <= {"1"}, "a worker loaded the encoder more than once"
    return [name for *_, name in lines]


def test_a_rerun_after_kill_9_repeats_at_most_one_slice_a_worker(day: Day, tmp_path: Path) -> None:
    undisturbed, disturbed = (day.copy(tmp_path / name) for name in ("undisturbed", "disturbed"))
    finish(start(undisturbed, tmp_path / "all"))
    every = slices(tmp_path / "all")
    assert len(every) == len(set(every)) and len(every) >= TEXTS / SLICE_TEXTS / 2

    log = tmp_path / "disturbed.log"
    kills = 0
    for share in (0.3, 0.7):
        process = start(disturbed, log)
        assert wait_until(lambda: log.exists() and len(slices(log)) >= share * len(every), 120, pause=0.01)  # noqa: B023
        assert process.running, "it was over before the kill"
        process.kill()
        assert process.all_gone()
        kills += 1
        assert not (disturbed.warehouse / "text_vectors" / f"ds={day.ds}" / "_current.json").exists()
    said = finish(start(disturbed, log))
    assert "were embedded by a run that did not end well" in said
    begun = Counter(slices(log))
    assert set(begun) == set(every)
    repeated = begun.total() - len(every)
    print(f"{len(every)} slices, {kills} kills, {repeated} slices embedded again")
    assert repeated <= kills * WORKERS
    assert seen(disturbed.warehouse) == seen(undisturbed.warehouse)


def test_a_job_that_is_told_to_end_keeps_what_is_done(day: Day, tmp_path: Path) -> None:
    """Airflow ends a task that takes too long by SIGTERM."""
    disturbed = day.copy(tmp_path / "disturbed")
    log = tmp_path / "log"
    process = start(disturbed, log)
    assert wait_until(lambda: log.exists() and len(slices(log)) >= 12, 120, pause=0.01)
    process.popen.terminate()
    assert process.wait() != 0 and process.all_gone()
    finish(start(disturbed, log))
    begun = Counter(slices(log))
    assert begun.total() - len(begun) <= WORKERS
    assert len(list((disturbed.warehouse / "text_vectors" / f"ds={day.ds}").iterdir())) == 2, "a dead attempt was left"
