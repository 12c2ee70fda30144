"""What the formats share: settings, with one error for what is missing or not supported, and tensors by our names."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ...mixers.base import LARGEST
from ...model import LanguageModel, ModelConfig

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
LARGEST_FLOAT = 1e300
USUAL = 256  # layers that are cheap to write down, whatever tensors there are


def number(config: Mapping[str, Any], name: str, default: float | None = None, kind: type = float) -> Any:
    """`config[name]` as `kind`, int or float; ValueError where it is missing without a default, or no such
    number, or a whole number beyond `LARGEST`, or not finite.
    """
    value = default if config.get(name) is None else config[name]
    if value is None:
        raise ValueError(f"config.json: expected {name}; it is not there")
    if type(value) not in (int, kind):
        raise ValueError(f"config.json: expected {name} to be a number ({kind.__name__}), got {value!r}")
    if abs(value) > (LARGEST if kind is int else LARGEST_FLOAT) or not isfinite(value):
        raise ValueError(f"config.json: expected {name} to be a finite number of usual size, got {value!r}")
    return kind(value)


def layer_count(config: Mapping[str, Any], name: str, tensors: Mapping[str, Tensor]) -> int:
    """`config[name]`, a number of layers that passes `check_layers`."""
    count = number(config, name, kind=int)
    check_layers(name, count, tensors)
    return count


def check_layers(name: str, count: int, tensors: Mapping[str, Tensor]) -> None:
    """ValueError where `tensors` are too few for `count` layers, as each has some of its own."""
    most = max(len(tensors), USUAL)
    if count > most:
        raise ValueError(
            f"config.json: expected {name} of at most {most}, as there are {len(tensors)} tensors, got {count}"
        )


def flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    """`config[name]`, or the default; ValueError for anything but true and false."""
    value = config.get(name, default)
    if type(value) is not bool:
        raise ValueError(f"config.json: expected {name} to be true or false, got {value!r}")
    return value


def entry(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings under `config[name]`, none where it is absent or null; ValueError where it is no object."""
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise ValueError(f"config.json: expected {name} to be an object, got {value!r}")
    return value


def require(config: Mapping[str, Any], prefix: str = "", **supported: tuple) -> None:
    """ValueError unless each of these settings is absent or has one of the values in `supported`."""
    for name, values in supported.items():
        if name in config and config[name] not in values:
            expected = " or ".join(repr(value) for value in values)
            raise ValueError(
                f"config.json: {prefix}{name} = {config[name]!r} is not supported here, only {expected} is; "
                "a model with it computes something else"
            )


def limit(pair: Any) -> tuple[float, float | None] | None:
    """A `time_step_limit` (least, most) for Mamba-2; None where it limits nothing.

    JSON has no infinity: it comes as Python writes it, or as transformers 5 does, {"__float__": "Infinity"}.
    """
    try:
        least, largest = (float(x["__float__"] if isinstance(x, dict) else x) for x in pair)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ValueError(f"config.json: expected the time step limit to be two numbers, got {pair!r}") from None
    most = None if largest == float("inf") else largest
    return None if least == 0 and most is None else (least, most)


def renamed(config: ModelConfig, parts: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under our names: the state_dict of `LanguageModel(config)`.

    `parts` is our name of a module -> theirs, `*` for the number of the layer. A tied head may be there or not.
    ValueError that names a tensor that is missing, not used, of another shape or not of floats.
    """
    if len(config.layers) > len(tensors):  # then one of the first layers' is missing: no need to build the others
        config = replace(config, layers=config.layers[: len(tensors) + 1])
    try:
        with torch.device("meta"):
            expected = LanguageModel(config).state_dict()
    except (RuntimeError, TypeError, OverflowError):
        raise ValueError(f"config.json: expected sizes that a tensor can have, got {_sizes(config)}") from None
    placed: dict[str, Tensor] = {}
    left = dict(tensors)
    for name, like in expected.items():
        theirs = _theirs(name, parts)
        tied = config.tie_embeddings and name == "head.weight"
        if theirs not in left and tied:
            placed[name] = placed["embedding.weight"]
            continue
        if theirs not in left:
            raise ValueError(f"expected the tensor {theirs}, {tuple(like.shape)}; the checkpoint does not have it")
        tensor = left.pop(theirs)
        if tensor.shape != like.shape or tensor.dtype not in DTYPES:
            raise ValueError(
                f"{theirs}: expected {tuple(like.shape)} floats, as config.json says, "
                f"got {tuple(tensor.shape)} {tensor.dtype}"
            )
        if tied and not torch.equal(tensor, placed["embedding.weight"]):
            raise ValueError(f"{theirs}: expected the embeddings, which config.json ties it to, got something else")
        placed[name] = tensor
    if left:
        raise ValueError(f"{min(left)}: a tensor that config.json has no place for ({len(left)} such in all)")
    return placed


def _sizes(config: ModelConfig) -> str:
    sizes = f"vocab_size {config.vocab_size}, d_model {config.d_model}, d_ff {config.d_ff}"
    return f"{sizes}, {len(config.layers)} layers, the first {config.layers[0]}"


def _theirs(name: str, parts: Mapping[str, str]) -> str:
    """blocks.3.mixer.out.weight -> model.layers.3.self_attn.o_proj.weight."""
    layer = re.search(r"\d+", name)
    module, _, leaf = re.sub(r"\d+", "*", name, count=1).rpartition(".")
    return f"{parts[module]}.{leaf}".replace("*", layer[0] if layer else "")
