"""Whether a model can use a store, which commands check before they begin."""

import re
from collections.abc import Collection
from pathlib import Path

from .._utils import jsontext
from .._utils.spelling import warn
from ..model import LanguageModel

ENOUGH = 0.5  # bits a token
OPTION = re.compile(r"--loo(?:k|ku|kup)?[= ]+['\"]?([0-9.eE+-]+)")


def can_store(model: LanguageModel) -> bool:
    """Whether a layer has an eidetic memory, and so may have a store."""
    return any(getattr(layer, "capacity", 0) for layer in model.config.layers)


def warn_unless_it_looks_up(folder: str | Path, model: LanguageModel, layers: Collection[int] | None = None) -> float:
    """Warn where the model, with these layers, finds only noise in a store. Returns the gain that was measured, bits a token."""
    from ..retrieval.remember import lookup_gain

    gain = lookup_gain(model, layers)
    if not gain >= ENOUGH:  # or no number
        share = trained_with(folder)
        why = (
            "nothing says that it was trained with --lookup"
            if share is None
            else f"its training with --lookup {share} was too little"
        )
        warn(
            "this model cannot look things up, so that a store is of no use to it and what it finds there is noise: "
            f"{why}; a stored passage is foretold {round(gain, 2) + 0.0:.2f} bits a token better (docs/memory.md)"
        )
    return gain


def trained_with(folder: str | Path) -> str | None:
    """--lookup in the command that `training.json` of the folder records; None for none, or 0."""
    try:
        command = jsontext.read(Path(folder) / "training.json", dict, infinite=True)["command"]
        share = OPTION.search(command)
        return share[1] if share and float(share[1]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
