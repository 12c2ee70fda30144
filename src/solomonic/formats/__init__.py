"""Checkpoints, ours and other people's: a folder of config.json and safetensors becomes our configuration and our state_dict.

A format is a file with `matches(config)`, whether a config.json is of it, and `translate(config, tensors)`, which
gives a `ModelConfig` and the `state_dict` of its `LanguageModel`, in the types that the tensors came in. Every tensor
is used, every one that the model needs is there and of the right shape, and every setting that changes what the model
computes is either honoured or refused by name. Nothing in a folder is executed.
"""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..model import ModelConfig
from . import llama, mamba2, solomonic, state_spaces

FORMATS = (solomonic, llama, mamba2, state_spaces)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def read_folder(folder: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model in `folder`: `LanguageModel(config).load_state_dict(tensors)` takes what this gives.

    ValueError for a format nobody here knows, a pickled or broken file, a setting or a tensor that cannot be honoured.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with config.json and {SINGLE}; there is none")
    config = _json(folder / "config.json")
    form = next((form for form in FORMATS if form.matches(config)), None)
    if form is None:
        known = ", ".join([solomonic.TYPE, *llama.FAMILIES, mamba2.TYPE])
        raise ValueError(
            f"{folder / 'config.json'}: expected model_type to be one of {known}, or d_model and n_layer as "
            f"state-spaces has them, got model_type {config.get('model_type')!r}"
        )
    return form.translate(config, _tensors(folder))


def _tensors(folder: Path) -> dict[str, Tensor]:
    if (folder / SINGLE).exists():
        return _load(folder / SINGLE)
    if (folder / INDEX).exists():
        return _shards(folder)
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if not pickled:
        raise ValueError(f"{folder}: expected {SINGLE} or {INDEX}; neither is there")
    raise ValueError(
        f"{folder}: expected {SINGLE}, got {pickled[0]}, a pickle, which can run code when it is read; if you trust "
        f"it, convert it with safetensors.torch.save_file({{k: v.clone() for k, v in torch.load({pickled[0]!r}, "
        f"weights_only=True).items()}}, {SINGLE!r})"
    )


def _shards(folder: Path) -> dict[str, Tensor]:
    shards = _json(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise ValueError(f"{folder / INDEX}: expected weight_map, the file of each tensor; it is not there")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(shards.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"{folder / INDEX}: expected the names of .safetensors files in the folder, got {file!r}")
        tensors |= _load(folder / file)
    for name, file in shards.items():
        if name not in tensors:
            raise ValueError(f"{folder / file}: expected the tensor {name}, which {INDEX} promises; it is not there")
    return tensors


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a file of tensors; it is not there") from None
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file, got one that cannot be read ({error})") from None


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: expected a JSON file; it is not there") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected JSON, got what cannot be read as such ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


__all__ = ["FORMATS", "read_folder"]
