"""No file is ever run, no name leads out of its folder, and nothing is open or known by default."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import EncoderConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.errors import HymirecError
from hymirec_model.hymirec import HyMiRec
from hymirec_model.index import load_index
from hymirec_model.item_space import ItemSpace
from hymirec_model.llm_recommender import load_backbone
from hymirec_model.user_side import UserSide
from hymirec_model.weights import DATA_ONLY
from infra import services
from infra.local_env import LOOPBACK, environment
from jobs.platform import profile, tracking
from jobs.platform.contracts import read_footers
from jobs.platform.manifest import FORMAT
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse

SOURCES = ("benchmarks", "dags", "hymirec_model", "infra", "jobs")
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"torch.load", "torch.jit.load", "os.system", "os.popen", "pd.read_pickle", "pandas.read_pickle"}
WORDS = {"trust_remote_code": True, "allow_pickle": True, "shell": True, "weights_only": False}


def trees(repository: Path) -> Iterator[tuple[Path, ast.Module]]:
    for folder in SOURCES:
        for path in sorted((repository / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def hazards(tree: ast.Module) -> list[str]:
    """Calls that run what they read, and the options that let them."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            found += [f"import of {name}" for name in names if name.split(".")[0] in PICKLES]
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in CALLS or name in ("eval", "exec", "compile", "__import__"):
                found.append(name)
            if name in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"):
                loaders = [ast.unparse(word.value) for word in node.keywords if word.arg == "Loader"]
                found += [] if loaders == ["_Loader"] else [f"{name} with {loaders}"]
            for word in node.keywords:
                if word.arg in WORDS and not (
                    isinstance(word.value, ast.Constant) and word.value.value is not WORDS[word.arg]
                ):
                    found.append(f"{word.arg}={ast.unparse(word.value)}")
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in WORDS and not isinstance(value, ast.Constant):
                    found.append(f"{key.value}: {ast.unparse(value)}")
                elif isinstance(key, ast.Constant) and key.value in WORDS:
                    found += [str(key.value)] if getattr(value, "value", None) is WORDS[key.value] else []
    return found


def test_nothing_that_runs_what_it_reads(repository: Path) -> None:
    assert not {str(path): seen for path, tree in trees(repository) if (seen := hazards(tree))}
    assert issubclass(profile._Loader, yaml.SafeLoader)


@pytest.mark.parametrize(
    "code",
    [
        "import joblib",
        "from pickle import loads",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(t, Loader=yaml.Loader)",
        "yaml.load(t)",
        "eval(t)",
        "AutoModel.from_pretrained(s, trust_remote_code=x)",
        "subprocess.run(c, shell=True)",
        "o = {'trust_remote_code': True}",
    ],
)
def test_the_search_finds_them(code: str) -> None:
    assert hazards(ast.parse(code))


def test_models_are_read_without_their_code(repository: Path) -> None:
    calls = [
        ast.unparse(node)
        for path, tree in trees(repository)
        if path.is_relative_to(repository / "hymirec_model")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and re.fullmatch(r"Auto\w+\.from_pretrained", ast.unparse(node.func))
    ]
    assert len(calls) >= 6
    safe = ("trust_remote_code=False", "**DATA_ONLY", "gguf_file=gguf.name")  # the last reads our own package's file
    assert not [call for call in calls if not any(word in call for word in safe)]
    assert DATA_ONLY == {"use_safetensors": True, "trust_remote_code": False}


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def hostile(marker: Path) -> dict[str, bytes]:
    """Files that run something when they are read by the wrong reader."""
    archive = marker.with_name("archive.pt")
    torch.save(Payload(marker), archive)
    tag = f"!!python/object/apply:os.mkdir ['{marker}']\n"
    code = pickle.dumps(Payload(marker))
    return {"pickle": code, "torch archive": archive.read_bytes(), "yaml": tag.encode(), "json": b'{"config": []}'}


def test_the_payload_works(tmp_path: Path) -> None:
    marker = tmp_path / "harm"
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.is_dir()


def _parquet(path: Path) -> None:
    read_footers(pafs.LocalFileSystem(), str(path.parent), [path.name])


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "codebook": ("codebook.safetensors", lambda path: ResidualCodebook.load(path.parent)),
    "item space": ("model.safetensors", lambda path: ItemSpace.load(path.parent)),
    "recommender": ("model.safetensors", lambda path: HyMiRec.load(path.parent)),
    "user side": ("user_side.safetensors", lambda path: UserSide.load(path.parent)),
    "encoder": ("item_token.safetensors", lambda path: ContentEncoder.load(path.parent)),
    "pretrained": ("pytorch_model.bin", lambda path: load_backbone(str(path.parent), 0)),
    "pretrained encoder": (
        "model.safetensors",
        lambda path: ContentEncoder.from_pretrained(EncoderConfig(), str(path.parent)),
    ),
    "index": ("index.faiss", load_index),
    "parquet": ("part-0.parquet", _parquet),
    "profile": ("profile.yaml", lambda path: profile.load_profile(str(path))),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["pickle", "torch archive", "yaml", "json"])
def test_hostile_files_are_refused_by_name_and_not_run(reader: str, kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "harm"
    content = hostile(marker)[kind]
    name, read = READERS[reader]
    for config in (content, b"{}", json.dumps({"model_type": "bert", "auto_map": {"AutoModel": "x.Y"}}).encode()):
        folder = tmp_path / hashlib.sha256(config).hexdigest()[:8]
        folder.mkdir()
        (folder / "config.json").write_bytes(config)
        (folder / name).write_bytes(content)
        with pytest.raises(HymirecError):
            read(folder / name)
    assert not marker.exists()


@settings(max_examples=150)
@given(content=st.binary(max_size=200), reader=st.sampled_from(["codebook", "item space", "index", "parquet"]))
def test_noise_is_refused_by_name(content: bytes, reader: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("noise")
    name, read = READERS[reader]
    (folder / "config.json").write_text("{}")
    (folder / name).write_bytes(content)
    with pytest.raises(HymirecError):
        read(folder / name)


AWAY = ("../away", "..", "/etc", "a/../../b", "events/ds=2024-03-03", "", "Events", "a\x00b", "2024-03-03/..")


@pytest.mark.parametrize("name", AWAY)
def test_names_do_not_lead_away(name: str, tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path / "warehouse"))
    calls: list[Callable[[], object]] = [
        lambda: wh.partition(name, "2024-03-03"),
        lambda: wh.find("histories", name),
        lambda: wh.latest("histories", until=name),
        lambda: wh.partitions(name),
        lambda: wh.write_partition(name, "2024-03-03").__enter__(),
        lambda: wh.write_partition("histories", name).__enter__(),
        lambda: Release.open(wh, name),
    ]
    for call in calls:
        with pytest.raises(HymirecError, match="seen"):
            call()
    assert not list(tmp_path.iterdir())


def test_refresh_ids_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for refresh_id in ("../x", "a'; --", "a/b", "", "x\ny"):
        with (
            pytest.raises(HymirecError, match="refresh id: seen"),
            tracking.stage("x", ds="2024-03-03", refresh_id=refresh_id),
        ):
            pass


def manifest(files: dict[str, Any]) -> tuple[str, bytes]:
    """Id and bytes of a manifest that vouches for itself."""
    body = {"ds": "2024-03-03", "parent": None, "format": FORMAT, "files": files}
    code = hashlib.sha256((json.dumps(body, indent=1, sort_keys=True) + "\n").encode()).hexdigest()[:8]
    release_id = f"2024-03-03-{code}"
    return release_id, (json.dumps(body | {"id": release_id}, indent=1, sort_keys=True) + "\n").encode()


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "items/../../../secret"])
def test_a_manifest_names_no_file_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    release_id, content = manifest({name: {"bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}})
    folder = tmp_path / "warehouse" / "releases" / release_id
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(content)
    (folder.parent / "CURRENT").write_text(release_id)
    with pytest.raises(HymirecError, match="outside of its folder"):
        Release.open(str(tmp_path / "warehouse"), full=True)


@pytest.mark.parametrize("text", ["../../other", "/etc", "2024-03-03-0123abcd/../..", "\x00", "x" * 10_000])
def test_current_names_no_folder_outside(text: str, tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "CURRENT").write_text(text)
    with pytest.raises(HymirecError, match="release id: seen"):
        Release.open(str(tmp_path))


@pytest.mark.parametrize(
    "change",
    [
        {"folder": "../../../elsewhere"},
        {"folder": "/etc"},
        {"folder": 3},
        {"files": {"../../x": 1}},
        {"files": {"/etc/passwd": 1}},
        {"files": ["x"]},
        {"info": None},
    ],
)
def test_a_pointer_names_no_folder_outside(change: dict[str, Any], tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    with wh.write_partition("histories", "2024-03-03") as part:
        (part.local / "x.json").write_text("{}")
    pointer = tmp_path / "histories" / "ds=2024-03-03" / "_current.json"
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | change))
    with pytest.raises(HymirecError, match="seen content that no job writes"):
        wh.partition("histories", "2024-03-03")


def test_services_listen_on_loopback_only(tmp_path: Path, repository: Path) -> None:
    env = environment({"HYMIREC_STATE": str(tmp_path), "AIRFLOW__API__HOST": "0.0.0.0"})
    assert env["AIRFLOW__API__HOST"] == env["SPARK_LOCAL_IP"] == LOOPBACK == "127.0.0.1"
    command = services._commands(env, 5000)["mlflow"]
    assert command[command.index("--host") + 1] == LOOPBACK
    text = "".join(ast.unparse(tree) for _, tree in trees(repository))
    assert "0.0.0.0" not in text


def test_secrets_are_made_a_state_folder_and_kept_private(tmp_path: Path) -> None:
    envs = [environment({"HYMIREC_STATE": str(tmp_path / name)}) for name in "ab"]
    secrets = [env["AIRFLOW__API_AUTH__JWT_SECRET"] for env in envs]
    assert secrets[0] != secrets[1] and min(map(len, secrets)) >= 64
    home = tmp_path / "a" / "airflow"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "jwt_secret").stat().st_mode) == 0o600
    assert not {key for key in envs[0] if re.search("ALL_ADMINS|SIMPLE_AUTH_MANAGER_(USERS|PASSWORDS)", key)}


def test_no_secret_is_written_down(repository: Path) -> None:
    names = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=True)
    word = r"(?i)\b\w*(password|passwd|secret|api_?key|access_?key|token)\w*"
    secret = re.compile(word + r"""["']?\s*[=:]\s*["'][^"'{$ ]{6,}""")
    known = re.compile(r"(?i)item_token|tokenizer|passwords\.json|/etc/passwd|secret\.|jwt_secret")
    found = []
    for name in names.stdout.splitlines():
        path = repository / name
        if path.suffix in (".py", ".yaml", ".toml", ".sh", ".conf", ".properties", "") and path.is_file():
            for line in path.read_text(errors="replace").splitlines():
                if secret.search(line) and not known.search(line):
                    found.append(f"{name}: {line.strip()}")
    assert not found
