"""The jobs train_item_space and train_recommender on a small warehouse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load
from transformers import LlamaConfig, LlamaModel

from hymirec_model.user_side import UserSide
from jobs import fit_codebook, train_item_space, train_recommender
from jobs.platform import cli, columns, tracking
from jobs.platform.training import READ, evaluation_cut
from jobs.platform.warehouse import Warehouse
from tests.small_day import DIM, item_vectors, profile, write_items
from tests.small_model import DAY, table, write_day, write_histories

ITEMS, NEXT = 300, "2020-03-21"
LONGEST = 40  # events that a history holds
CUT = int(evaluation_cut(DAY, 7).timestamp())


def write_texts(wh: Warehouse) -> None:
    """Write an encoder's partition and the states it would have given."""
    with wh.write_partition("encoder", DAY) as part:
        (part.local / "config.json").write_text("{}")
        part.info["version"] = "e1"
    states = np.random.default_rng(0).normal(size=(ITEMS, 12)).astype(np.float16)
    rows = {"text_hash": [f"hash-{i}" for i in range(ITEMS)], "state": columns.fixed_lists(states)}
    with wh.write_partition("text_vectors", DAY) as part:
        part.write_table(pa.table(rows))
        part.info |= {"encoder_version": "e1", "dim": 12}


def write_user_side(wh: Warehouse) -> None:
    """Write what train_recommender needs of an item space."""
    torch.manual_seed(0)
    with wh.write_partition("item_space", DAY) as part:
        UserSide(DIM, width=16, recency=0.5).save(part.local)


def small_profile(folder: Path, light_width: int = 16) -> str:
    llama = LlamaConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        vocab_size=5,
    )
    if not (folder / "llama").exists():
        LlamaModel(llama).save_pretrained(folder / "llama")
    return profile(
        folder,
        histories=f"{{max_length: {LONGEST}}}",
        item_space="{dim: 8, steps: 3, batch_users: 8, window: 3, history: 10, negatives: 20}",
        recommender=f"{{weights: {folder}/llama, backbone_layers: 1, interests: 2, coarse_interests: 4, history: 20, "
        f"recent: 4, light_width: {light_width}}}",
        recommender_training="{light_steps: 2, steps: 2, batch_users: 8, window: 3, negatives: 20, "
        "checkpoint_steps: 3}",
    )


def run(job: object, wh: Warehouse, settings: str, *options: str, ds: str = DAY) -> None:
    with pytest.raises(SystemExit) as done:
        cli.run(job.main, ["--warehouse", wh.uri, "--ds", ds, "--profile", settings, *options])  # type: ignore[attr-defined]
    assert done.value.code == 0


def bytes_of(wh: Warehouse, name: str) -> dict[str, bytes]:
    part = wh.partition(name, DAY)
    return {file: (wh.local_copy(part) / file).read_bytes() for file in part.files}


def with_another_future(rows: pa.Table) -> pa.Table:
    """Replace what every user did from the cut on, and let users come who did nothing before."""
    out = rows.to_pylist()
    for number in (0, 5):
        out.insert(number, out[number] | {"user_id": f"user-{number:03d}-new", "item_indices": [], "timestamps": []})
    for number, row in enumerate(out):
        past = [(i, t) for i, t in zip(row["item_indices"], row["timestamps"], strict=True) if t < CUT]
        future = [((7 * number + step) % ITEMS, CUT + 3600 * step) for step in range(1 + number % 5)]
        row["item_indices"], row["timestamps"] = [i for i, _ in past + future], [t for _, t in past + future]
    return pa.Table.from_pylist(out, rows.schema)


def held(rows: pa.Table) -> pa.Table:
    """What update_histories keeps: the newest events."""
    out = rows.to_pylist()
    for row in out:
        for name in ("item_indices", "timestamps"):
            row[name] = row[name][-LONGEST:]
    return pa.Table.from_pylist(out, rows.schema)


@pytest.mark.parametrize(
    ("job", "model"),
    [(train_item_space, "item_space"), (fit_codebook, "codebook"), (train_recommender, "recommender")],
)
def test_held_out_events_never_reach_a_model(
    job: object, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wh, settings = Warehouse(str(tmp_path / "warehouse")), small_profile(tmp_path)
    write_day(wh, n_items=ITEMS)
    write_texts(wh)
    if job is train_recommender:
        write_user_side(wh)
    rows = table(40, ITEMS)
    assert max(map(len, rows["item_indices"].to_pylist())) > LONGEST
    write_histories(wh, held(rows))
    run(job, wh, settings)
    assert "there is no " in capsys.readouterr().out
    first = bytes_of(wh, model)

    other = with_another_future(rows)
    assert rows["item_indices"].to_pylist() != other["item_indices"].to_pylist()
    write_histories(wh, held(other))
    run(job, wh, settings)
    assert bytes_of(wh, model) == first, "events of the held-out days changed the model"

    earlier = other.to_pylist()
    for row in earlier:
        row["item_indices"] = [1 if t < CUT else i for i, t in zip(row["item_indices"], row["timestamps"], strict=True)]
    write_histories(wh, held(pa.Table.from_pylist(earlier, other.schema)))
    run(job, wh, settings)
    assert bytes_of(wh, model) != first, "events before the cut do not reach the model"


def test_another_width_of_the_light_recommender_trains_the_item_space_that_it_starts_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wh = Warehouse(str(tmp_path / "warehouse"))
    write_day(wh, n_items=ITEMS)
    shutil.rmtree(tmp_path / "warehouse" / "recommender")  # that of write_day has no record of its settings
    write_texts(wh)
    run(train_item_space, wh, small_profile(tmp_path))
    write_items(wh, NEXT, item_vectors(ITEMS), ["2020-01-01"] * ITEMS)
    write_histories(wh, table(40, ITEMS), NEXT)
    run(train_item_space, wh, small_profile(tmp_path), ds=NEXT)
    assert "item space: kept, not due" in capsys.readouterr().out

    settings = small_profile(tmp_path, light_width=24)
    for job in (train_item_space, fit_codebook):
        run(job, wh, settings, ds=NEXT)
    assert "trained (the profile changed recommender.light_width from 16 to 24)" in capsys.readouterr().out
    book, codes = wh.partition("codebook", NEXT), wh.partition("item_codes", DAY)
    with wh.write_partition("item_codes", NEXT) as part:
        part.write_table(wh.read(codes))
        part.info |= codes.info | {name: book.info[name] for name in ("book", "tables", "space_version")}
    run(train_recommender, wh, settings, ds=NEXT)


def test_a_run_that_did_not_end_well_is_taken_up_to_the_same_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wh, settings = Warehouse(str(tmp_path / "wh")), small_profile(tmp_path)
    write_day(wh, n_items=ITEMS)
    write_user_side(wh)
    folder, unfinished = tmp_path / "wh" / "recommender" / f"ds={DAY}", tmp_path / "wh" / ".checkpoints"
    shutil.rmtree(folder)
    folder.write_text("in the way, which the job finds out when all is trained")
    with pytest.raises(NotADirectoryError):
        run(train_recommender, wh, settings)
    assert "goes on" not in capsys.readouterr().out
    left = sorted(path.name for path in (unfinished / "recommender" / f"ds={DAY}").iterdir())
    assert left == ["checkpoint.json", "step-3.safetensors"]

    folder.unlink()
    run(train_recommender, wh, settings, "--refresh-id", "taken up")
    assert "training: goes on after step 3, from the checkpoint of a run that" in capsys.readouterr().out
    assert not list(unfinished.iterdir())
    taken_up = bytes_of(wh, "recommender")
    run(train_recommender, wh, settings, "--refresh-id", "undisturbed")
    assert "goes on" not in capsys.readouterr().out
    assert bytes_of(wh, "recommender") == taken_up

    client = MlflowClient()
    found = client.search_runs(
        [tracking.find_experiment(client)],
        "tags.`hymirec.refresh_id` = 'undisturbed' and attributes.run_name = 'train_recommender'",
    )
    rates = {name: client.get_metric_history(found[0].info.run_id, f"{name}_per_second") for name in READ}
    assert [point.step for point in rates["users"]] == [2, 3, 4]
    assert [point.step for point in rates["tokens"]] == [3, 4], "the light recommender reads no tokens"
    for users, tokens in zip(rates["users"][1:], rates["tokens"], strict=True):
        a_user = round(tokens.value / users.value, 6)  # of two rates, each rounded
        assert 4 + 2 <= a_user <= 4 + 4 + 2, "M coarse interests, up to R items, K queries a user"


def test_what_became_of_a_phase_is_told_in_words_and_drawn_after_a_kill_too() -> None:
    figures = {"validation_loss": 2.0}
    for phase, recalls in (("light", (0.2, 0.1, 0.2, 0)), ("llm", (0.2, 0.25, 0.3, 15))):
        names = (f"{name}_{phase}" for name in ("before", "after", "kept", "kept_step"))
        figures |= dict(zip((f"validation_recall_{name}" for name in names), recalls, strict=True))
    assert train_recommender.outcome(figures).endswith(
        "light recommender 0.2000 -> 0.1000 (undone), the LLM 0.2000 -> 0.2500 (kept 0.3000 of step 15)"
    )
    losses, recalls = train_recommender.picture({76: 3.0, 77: 2.5}, 60, figures).axes
    assert [list(line.get_xdata()) for line in losses.lines if line.get_label() == "LLM"] == [[16, 17]]
    drawn = {line.get_label(): list(line.get_ydata()) for line in recalls.lines}
    assert drawn == {"light recommender (undone)": [0.2, 0.1], "LLM (kept)": [0.2, 0.3]}


def machine_with_two_devices(folder: Path) -> dict[str, str]:
    """Environment of a machine whose driver lists two GPUs; torch, which finds none, computes on the CPU."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA X'\necho 'GPU 1: NVIDIA X'\n")
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    inherited = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    return {**inherited, "PATH": path, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def test_two_processes_train_the_same_model_and_one_of_them_writes_it(tmp_path: Path) -> None:
    settings, trained = small_profile(tmp_path), []
    for name in ("alone", "together"):
        wh = Warehouse(str(tmp_path / name))
        write_day(wh, n_items=ITEMS)
        write_user_side(wh)
        before = {path.name for path in (tmp_path / name / "recommender" / f"ds={DAY}").iterdir()}
        if name == "alone":
            run(train_recommender, wh, settings)
        else:
            options = ["--warehouse", wh.uri, "--ds", DAY, "--profile", settings, "--refresh-id", name]
            command = [sys.executable, "-m", "jobs.platform.launcher", "train_recommender", *options]
            environment = machine_with_two_devices(tmp_path)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.count("launcher: train_recommender on 2 CUDA devices") == 1
            assert done.stdout.count("recommender: trained (there is no ") == 1, done.stdout
        after = {path.name for path in (tmp_path / name / "recommender" / f"ds={DAY}").iterdir()}
        assert len(after - before) == 1, "one attempt, of the first process"
        trained.append((wh.partition("recommender", DAY).info, bytes_of(wh, "recommender")))

    (info, files), (other_info, other_files) = trained
    assert files.keys() == other_files.keys()
    for key, value in info.items():
        if isinstance(value, float):
            assert other_info[key] == pytest.approx(value, rel=1e-4), key
    for name in (name for name in files if name.endswith(".safetensors")):
        ours, theirs = load(files[name]), load(other_files[name])
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            if not key.endswith("attend.bias"):  # added to all scores of a softmax: its gradient is rounding alone
                torch.testing.assert_close(theirs[key], tensor, rtol=1e-4, atol=1e-5, msg=key)
    client = MlflowClient()
    found = client.search_runs([tracking.find_experiment(client)], "tags.`hymirec.refresh_id` = 'together'")
    assert sorted(str(run.info.run_name) for run in found) == [f"refresh {DAY}", "train_recommender"]
