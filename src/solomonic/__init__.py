"""Solomonic: sequence models that remember."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .model import LanguageModel, ModelConfig
    from .presets import PRESETS, preset

__version__ = "0.1.0"
__all__ = ["PRESETS", "LanguageModel", "ModelConfig", "preset"]


def __getattr__(name: str) -> object:
    """Imported when it is asked for: PyTorch takes seconds, in which the command line has to look after Ctrl-C."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import model, presets

    return getattr(presets if name in ("PRESETS", "preset") else model, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
