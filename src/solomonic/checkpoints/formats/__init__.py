"""Checkpoints, ours and other people's: a folder of config.json and safetensors becomes our configuration and our state_dict.

A format is a file with `matches(config)`, whether a config.json is of it, and `translate(config, tensors)`, which
gives a `ModelConfig` and the `state_dict` of its `LanguageModel`, in the types that the tensors came in. Every tensor
is used, every one that the model needs is there, of the right shape and finite, and every setting that changes what the
model computes is either honoured or refused by name. The tensors bound the settings: nothing of a size that only
config.json names is ever built. Nothing in a folder is executed.
"""

from pathlib import Path

from torch import Tensor, float32

from ..._utils import jsontext
from ...model import ModelConfig
from ..tensors import check_digest, map_tensors
from . import llama, mamba2, solomonic, state_spaces

FORMATS = (solomonic, llama, mamba2, state_spaces)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SETTINGS, TOKENIZER = "solomonic-settings", "solomonic-tokenizer"
"""In the text beside our weights: digests of the settings and of the tokenizer that belong to them."""
PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def read_folder(folder: str | Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The model in `folder`: `LanguageModel(config).load_state_dict(tensors)` takes what this gives.

    ValueError for an unknown format, a pickled or broken file, a setting or a tensor that cannot be honoured, and
    for weights that are damaged: not finite or, in a folder of ours, not those that were saved with these settings.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder with config.json and {SINGLE}; there is none")
    config = jsontext.read(folder / "config.json", dict, infinite=True)
    form = next((form for form in FORMATS if form.matches(config)), None)
    if form is None:
        known = ", ".join([solomonic.TYPE, *llama.FAMILIES, mamba2.TYPE])
        raise ValueError(
            f"{folder / 'config.json'}: expected model_type to be one of {known}, or d_model and n_layer as "
            f"state-spaces has them, got model_type {config.get('model_type')!r}"
        )
    tensors, written = _tensors(folder)
    check_digest(folder / SINGLE, tensors, written, ours=SETTINGS in written)
    try:
        model, placed = form.translate(config, tensors)
    except ValueError as error:
        raise ValueError(f"{folder}{'/' if str(error).startswith('config.json') else ': '}{error}") from None
    if written.get(SETTINGS) not in (None, jsontext.digest(config.get("model"))):
        raise ValueError(
            f"{folder / 'config.json'}: expected the settings of the model that {SINGLE} was saved with, got others; "
            "use a copy, or save the model again"
        )
    for name, tensor in placed.items():
        if not _is_finite(tensor):
            raise ValueError(f"{folder}: expected finite weights, got {name} with NaN or infinity in it; use a copy")
    return model, placed


def check_tokenizer(folder: str | Path) -> None:
    """ValueError where tokenizer.json is not the one that a model of ours was saved with."""
    folder = Path(folder)
    written = map_tensors(folder / SINGLE)[1].get(TOKENIZER) if (folder / SINGLE).is_file() else None
    if written not in (None, jsontext.digest(jsontext.read(folder / "tokenizer.json"))):
        raise ValueError(
            f"{folder / 'tokenizer.json'}: expected the tokenizer that the model was saved with, got another; use a copy, "
            "or save the model with this one"
        )


def _tensors(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, mapped from the disk, and the text beside them."""
    if (folder / SINGLE).exists():
        return map_tensors(folder / SINGLE)
    if (folder / INDEX).exists():
        return _shards(folder), {}
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if not pickled:
        raise ValueError(f"{folder}: expected {SINGLE} or {INDEX}; neither is there")
    raise ValueError(
        f"{folder}: expected {SINGLE}, got {pickled[0]}, a pickle, which can run code when it is read; if you trust "
        f"it, convert it with safetensors.torch.save_file({{k: v.clone() for k, v in torch.load({pickled[0]!r}, "
        f"weights_only=True).items()}}, {SINGLE!r})"
    )


def _shards(folder: Path) -> dict[str, Tensor]:
    shards = jsontext.read(folder / INDEX, dict).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise ValueError(f"{folder / INDEX}: expected weight_map, the file of each tensor; it is not there")
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(shards.values())):
        if Path(file).name != file or not file.endswith(".safetensors"):
            raise ValueError(f"{folder / INDEX}: expected the names of .safetensors files in the folder, got {file!r}")
        tensors |= map_tensors(folder / file)[0]
    for name, file in shards.items():
        if name not in tensors:
            raise ValueError(f"{folder / file}: expected the tensor {name}, which {INDEX} promises; it is not there")
    return tensors


def _is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite: by their sum first, which may overflow, then one by one."""
    return bool(tensor.sum(dtype=tensor.dtype if tensor.dtype.itemsize > 4 else float32).isfinite()) or bool(
        tensor.isfinite().all()
    )


__all__ = ["FORMATS", "SETTINGS", "SINGLE", "TOKENIZER", "check_tokenizer", "read_folder"]
