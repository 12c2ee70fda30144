"""Mixers, one file each. A file that defines a `Mixer` is known by its configuration's name, and under test.

A plug-in sets its mixers here: `MIXERS["ema"] = EMA`, under the name of the configuration.
"""

import importlib
import pkgutil
from typing import Any

from .._utils.plugins import Registry
from .base import Mixer, MixerConfig, State
from .base import config_from_dict as _config_from_dict


def _discover() -> dict[str, type[Mixer]]:
    mixers = {}
    for module in pkgutil.iter_modules(__path__):
        for value in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Mixer) and hasattr(value, "Config"):
                mixers[value.Config.name] = value
    return dict(sorted(mixers.items()))


def _fault(name: str, mixer: type[Mixer]) -> str | None:
    if (
        isinstance(mixer, type)
        and issubclass(mixer, Mixer)
        and getattr(getattr(mixer, "Config", None), "name", None) == name
    ):
        return None
    return "a subclass of Mixer whose Config has that name"


MIXERS: Registry[type[Mixer]] = Registry("mixer", _discover(), _fault)


def build(config: MixerConfig, d_model: int) -> Mixer:
    return MIXERS[config.name](d_model, config)


def config_from_dict(settings: dict[str, Any]) -> MixerConfig:
    return _config_from_dict(settings, MIXERS)


__all__ = ["MIXERS", "Mixer", "MixerConfig", "State", "build", "config_from_dict"]
