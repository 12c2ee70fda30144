"""The checkpoint of a run in one file: weights, optimizer, and what the run adds. Nothing in it is executed.

Whole tensors are kept, however the run is spread over processes, so that it can go on with another number of them. A
checkpoint says what run it is of, and goes on as that run alone: another one's, or a damaged one, is refused and stays.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import Optimizer

from .._utils import jsontext
from .._utils.plugins import advice, recorded
from ..model import ModelConfig
from .tensors import read_tensors, write_tensors

MODEL, OPTIMIZER, REST = "model.", "optimizer.", "run."
KEY = "solomonic-run"
LARGE = {"model": "another model", "data": "other data", "from": "other weights to begin with"}
"""Parts of an identity that are named when they differ, and not shown."""


class Damaged(ValueError):
    """A checkpoint that is not what was written, or not all that a run needs."""


def weights(model: nn.Module) -> dict[str, Tensor]:
    """On the CPU of the main process; elsewhere it may be empty. All processes have to call it."""
    tensors: dict[str, Any] = get_model_state_dict(
        model, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return tensors


def collect(model: nn.Module, optimizer: Optimizer, rest: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors of a run by name, `rest` what else it needs, on the main process. All processes have to call it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    optimizer_state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=options)
    moments = optimizer_state.get("state", {})
    tensors, kept = {}, set()
    for name, tensor in weights(model).items():
        if tensor.data_ptr() not in kept:  # a tied head is its embeddings
            tensors[MODEL + name] = tensor
        kept.add(tensor.data_ptr())
    tensors |= {f"{OPTIMIZER}{key}.{name}": x for name, state in moments.items() for key, x in state.items()}
    return tensors | {REST + name: tensor for name, tensor in rest.items()}


def save(path: Path, tensors: dict[str, Tensor], content: dict[str, Any]) -> None:
    """Replace the checkpoint; `content` is plain values, its "identity" what run it is of.

    OSError, and the old one, when the disk is full. Only the main process calls it.
    """
    write_tensors(path, tensors, {KEY: json.dumps(content | recorded(content.get("identity")))})


def load(path: Path, identity: dict[str, Any] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and content of a checkpoint, which has to be of the run `identity`, unless that is None.

    ValueError for one of another run, which says what differs; Damaged for a file that is no checkpoint or was damaged.
    """
    try:
        tensors, metadata = read_tensors(path, ours=True)
        if KEY not in metadata:
            raise ValueError(f"{path}: expected the checkpoint of a run, got other tensors")
        content = jsontext.parse(metadata[KEY], str(path), dict, infinite=True)
    except ValueError as error:
        raise Damaged(str(error)) from None
    if identity is not None:
        _same(path, identity, content.get("identity"), advice(content, "it"))
    return tensors, content


def broken(path: Path, error: Exception) -> Damaged:
    """The error for a checkpoint with content that no run wrote, at which `error` was raised."""
    return Damaged(f"{path}: expected the checkpoint of a run, got a broken one ({error!r}); use a copy")


def restore(
    path: Path, model: nn.Module, optimizer: Optimizer, tensors: dict[str, Tensor], tied: bool
) -> dict[str, Tensor]:
    """Set weights and optimizer to what `collect` took; returns its `rest`. All processes call it with the same tensors.

    Damaged, which names `path`, for tensors of another model, or not all of them; nothing is changed then.
    """
    parts: dict[str, dict[str, Any]] = {
        prefix: {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
        for prefix in (MODEL, OPTIMIZER, REST)
    }
    full = StateDictOptions(full_state_dict=True)
    if tied and "embedding.weight" in parts[MODEL]:
        parts[MODEL]["head.weight"] = parts[MODEL]["embedding.weight"]
    expected = {name: x.shape for name, x in model.state_dict().items()}
    for name in sorted(expected.keys() | parts[MODEL].keys()):
        tensor = parts[MODEL].get(name)
        if tensor is None or tensor.shape != expected.get(name):
            raise Damaged(
                f"{path}: expected a checkpoint with {name} of shape {_shape(expected.get(name))}, got {_shape(tensor)}; use a copy"
            )
    moments: dict[str, Any] = {}
    for name, tensor in parts[OPTIMIZER].items():
        key, _, parameter = name.partition(".")
        moments.setdefault(parameter, {})[key] = tensor
    kinds = {kind for state in moments.values() for kind in state}
    for name, _ in model.named_parameters():
        if missing := kinds - moments.get(name, {}).keys():
            raise Damaged(f"{path}: expected a checkpoint with {min(missing)} of {name}, got none; use a copy")
    if not kinds:
        raise Damaged(f"{path}: expected a checkpoint with the state of its optimizer, got none; use a copy")
    set_model_state_dict(model, parts[MODEL], options=full)
    optimizer.zero_grad()  # beside gradients no moments are taken
    groups = get_optimizer_state_dict(model, optimizer, options=full)["param_groups"]
    set_optimizer_state_dict(model, optimizer, {"state": moments, "param_groups": groups}, options=full)
    return parts[REST]


def _same(path: Path, now: dict[str, Any], then: Any, more: str) -> None:
    then = _of_today(then) if isinstance(then, dict) else {}
    odd = [name for name in now | then if now.get(name) != then.get(name)]
    if not odd:
        return
    what = [LARGE.get(name, f"{name} {then.get(name)!r}, now {now.get(name)!r}") for name in odd]
    raise ValueError(
        f"{path}: expected a checkpoint of this run, got one of {'; '.join(what)}; go on with the settings that it "
        f"was begun with, or train into another place{more}"
    )


def _of_today(identity: dict[str, Any]) -> dict[str, Any]:
    """The identity with the settings that models have had since it was written."""
    try:
        return identity | {"model": ModelConfig.from_dict(identity["model"]).to_dict()}
    except (KeyError, TypeError, ValueError):
        return identity


def _shape(x: Any) -> str:
    return "none" if x is None else str(tuple(getattr(x, "shape", x)))


__all__ = ["Damaged", "broken", "collect", "load", "restore", "save", "weights"]
