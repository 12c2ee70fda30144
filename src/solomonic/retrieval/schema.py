"""The schema of a model's store: its layers that store, and the scores from which on they store a token."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ..checkpoints.folder import fingerprint
from ..memory import LayerSchema, StoreSchema
from ..mixers import State
from ..mixers.bmojo import BMojoConfig
from ..model import LanguageModel
from ..ops.innovation import rank
from ..ops.memory_attention.state import ring_scores

ROWS, LENGTH, SKIPPED = 64, 64, 32
"""Texts that the model writes to set the admission thresholds by, their tokens, and how many of these do not count."""

CALL = 256  # tokens of a given text that are read at a time


def storing_layers(model: LanguageModel) -> dict[int, BMojoConfig]:
    """The layers with an eidetic memory, numbers from 0."""
    layers = enumerate(model.config.layers)
    return {i: config for i, config in layers if isinstance(config, BMojoConfig) and config.capacity}


def store_schema(
    model: LanguageModel,
    layers: Collection[int] | None = None,
    dtype: str = "float16",
    keep: float = 1.0,
    text: Tensor | None = None,
) -> StoreSchema:
    """The schema of a store for `model`: of all its layers with an eidetic memory, or of `layers`, numbers from 0.

    keep: the share of tokens whose score passes the admission threshold; 1 keeps all. It is the share of the tokens of
    `text` (T,) or, without one, of texts that the model writes itself: then the schema is a function of the model alone.
    ValueError for a model or a layer without an eidetic memory.
    """
    able = storing_layers(model)
    storing = list(able) if layers is None else sorted(set(layers))
    if not storing or not set(storing) <= able.keys():
        has = ", ".join(map(str, able)) or "none"
        raise ValueError(f"expected layers with an eidetic memory to store, got {storing}; this model's are {has}")
    if not 0 < keep <= 1:
        raise ValueError(f"keep: expected a share in (0, 1], got {keep}")
    least: dict[int, float] = {}
    if keep < 1:
        if text is not None and len(text) < 2:
            raise ValueError("keep: expected some text to measure scores on, got none")
        scores = _scores_of_own_texts(model, storing) if text is None else _scores(model, storing, text)
        least = {i: float(of_layer.quantile(1 - keep)) for i, of_layer in scores.items()}
    schemas = []
    for i in storing:
        config, dim = able[i], model.config.d_model // able[i].n_heads
        admit = config.score == "learned"
        schemas.append(LayerSchema(i, config.kv_heads, dim, config.block_size, admit, least.get(i)))
    return StoreSchema(fingerprint(model), tuple(schemas), dtype)


def _scores_of_own_texts(model: LanguageModel, layers: Sequence[int]) -> dict[int, Tensor]:
    """The scores, of each layer, of the tokens of texts that the model writes itself, each sampled from its prediction."""
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(model.config.vocab_size, (ROWS, 1), generator=random)
    scores: dict[int, list[Tensor]] = {i: [] for i in layers}
    state: State | None = None
    with torch.inference_mode():
        for at in range(LENGTH):
            logits, state = model(tokens.to(model.device), state)
            p = logits[:, -1].cpu().double().softmax(-1)
            if not p.isfinite().all():
                raise ValueError("expected finite logits, got others; the model's weights are damaged")
            tokens = torch.multinomial(p, 1, generator=random)
            for i in layers if at >= SKIPPED else ():
                scores[i].append(rank(ring_scores(state["layers"][i]["attention"])[:, -1]).cpu())
    return {i: torch.cat(s) for i, s in scores.items()}


def _scores(model: LanguageModel, layers: Sequence[int], text: Tensor) -> dict[int, Tensor]:
    """The scores, of each layer, of tokens of `text`."""
    scores: dict[int, list[Tensor]] = {i: [] for i in layers}
    state: State | None = None
    with torch.inference_mode():
        for part in text[None].split(CALL, 1):
            _, state = model(part.to(model.device), state)
            for i in layers:
                recent = rank(ring_scores(state["layers"][i]["attention"])[0])
                scores[i].append(recent[-min(part.shape[1], len(recent)) :].cpu())
    return {i: torch.cat(s) for i, s in scores.items()}


__all__ = ["store_schema", "storing_layers"]
