"""Plug-ins: modules that add mixers, architectures and tasks to the library, by setting them in its registries.

    from solomonic.mixers import MIXERS

    MIXERS["ema"] = EMA

A module is imported because a user names it, or because it is installed with an entry point of the group
`solomonic.plugins`; never because a model, a checkpoint or a folder of results names it.
"""

import importlib
import importlib.util
import re
import sys
import warnings
from collections import UserDict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")
GROUP = "solomonic.plugins"
NAME = re.compile("[a-z0-9_]{1,60}")  # files have it in their names


class Taken(ValueError):
    """A name that is registered twice."""


class Unloadable(ValueError):
    """A plug-in that cannot be imported, or registers nothing."""


class Registry(UserDict[str, T]):
    """Names and what they stand for: those of the library, and those that plug-ins set.

    A name that is not there is looked for in the plug-ins that are installed; iteration gives what is loaded. Setting a name
    that another has raises `Taken`, which names both; ValueError for a name that cannot be, or where `check` finds fault.
    """

    def __init__(self, kind: str, own: Mapping[str, T], check: Callable[[str, T], str | None]):
        """check(name, value): what was expected, or None where all is well."""
        super().__init__()
        self.data.update(own)
        self.kind, self.own, self._fault = kind, tuple(own), check
        self.origins: dict[str, str] = {}
        """Of every name that is not the library's own, the plug-in: the word by which it was loaded, or a module."""
        _registries.append(self)

    def __contains__(self, name: object) -> bool:
        if name not in self.data:
            load_installed()
        return name in self.data

    def __missing__(self, name: str) -> T:
        if name in self:
            return self.data[name]
        raise KeyError(name)

    def __setitem__(self, name: str, value: T) -> None:
        origin = _loading[-1] if _loading else _module_of(value)
        if name in self.data:
            if self.data[name] is value:
                return
            first = self.origins.get(name, "solomonic")
            raise Taken(
                f"{self.kind} {name!r}: expected a name that no other has, got it from {first} and from {origin}; rename one "
                "of them, or load one alone"
            )
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"{self.kind}: expected a name of small letters, digits and _, 60 at most, got {name!r}")
        if expected := self._fault(name, value):
            raise ValueError(f"{self.kind} {name!r}: expected {expected}, got {value!r}")
        self.data[name], self.origins[name] = value, origin

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.origins.pop(name, None)

    @property
    def added(self) -> list[str]:
        """The names that plug-ins have set so far."""
        return list(self.origins)


_registries: list[Registry[Any]] = []
_loading: list[str] = []  # the word of the plug-in that is being imported
_loaded: dict[str, str] = {}  # by the name of its module, the word that a plug-in was loaded by


def load(word: str) -> None:
    """Import a plug-in: the name of a module, or the path of a .py file. A second time nothing happens.

    ValueError, and nothing registered, for what cannot be imported or registers nothing, or a name that is taken.
    """
    is_file = word.endswith(".py")
    name = "solomonic_plugin_" + re.sub(r"\W", "_", str(Path(word).absolute())) if is_file else word
    if name in _loaded:
        return
    if not is_file and not all(part.isidentifier() for part in word.split(".")):
        raise Unloadable(f"plug-in {word!r}: expected the name of a module, or the path of a .py file")
    _loading.append(word)
    try:
        _import_file(name, word) if is_file else importlib.import_module(name)
        if not any(_is_of(origin, word, name) for registry in _registries for origin in registry.origins.values()):
            raise Unloadable(
                f"plug-in {word}: expected a module that registers a mixer, an architecture or a task, got none"
            )
    except BaseException as error:
        for registry in _registries:
            for added in [added for added, origin in registry.origins.items() if origin == word]:
                del registry[added]
        sys.modules.pop(name, None)
        if isinstance(error, Taken | Unloadable) or not isinstance(error, Exception | SystemExit):
            raise
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name and _is_of(word, error.name, error.name):
            what = (
                f"none of that name; {word}.py is a file, which is named so" if Path(f"{word}.py").is_file() else "none"
            )
        raise Unloadable(f"plug-in {word}: expected a module that can be imported, got {what}") from error
    finally:
        _loading.pop()
    _loaded[name] = word


def load_installed() -> None:
    """Load what is installed with an entry point of the group, once; a warning names what cannot be imported."""
    while not _loading and (left := _to_load()):
        try:
            load(left[0])
        except Unloadable as error:
            warnings.warn(str(error), stacklevel=2)
        del left[0]


@cache
def _to_load() -> list[str]:
    """The modules of the entry points that have not been loaded yet."""
    from importlib.metadata import entry_points

    return sorted({point.module for point in entry_points(group=GROUP)})


def used(settings: Any) -> list[str]:
    """The plug-ins of which plain settings name something, each by the word that it was loaded by, or its module."""
    texts = set(_texts(settings))
    found = {origin for registry in _registries for name, origin in registry.origins.items() if name in texts}
    return sorted(found)


def recorded(settings: Any) -> dict[str, list[str]]:
    """{"plugins": those of `used`} as a file keeps them, a path by its last part; nothing where there are none."""
    names = sorted({_shown(word) for word in used(settings)})
    return {"plugins": names} if names else {}


def absent(content: Mapping[str, Any]) -> str:
    """The plug-ins that a file has recorded and that are not loaded, for a message. Nothing is imported."""
    here = {_shown(origin) for registry in _registries for origin in registry.origins.values()}
    names = content.get("plugins")
    return ", ".join(str(name) for name in names if name not in here) if isinstance(names, list) else ""


def advice(content: Mapping[str, Any], where: object) -> str:
    """What to add to the message for a name that is not known, where the file `where` has recorded plug-ins."""
    names = absent(content)
    return f"; {where} was made with the plug-in {names}: name it with --plugin" if names else ""


def _import_file(name: str, word: str) -> ModuleType:
    path = Path(word)
    if not path.is_file():
        raise Unloadable(f"plug-in {word}: expected a Python file, there is none")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _module_of(value: Any) -> str:
    return str(getattr(value[-1] if isinstance(value, tuple) and value else value, "__module__", "a plug-in"))


def _is_of(origin: str, word: str, module: str) -> bool:
    return origin in (word, module) or origin.startswith(f"{module}.")


def _shown(word: str) -> str:
    return Path(word).name if word.endswith(".py") else word


def _texts(content: Any) -> list[str]:
    if isinstance(content, Mapping):
        return [text for pair in content.items() for part in pair for text in _texts(part)]
    if isinstance(content, (list, tuple)):
        return [text for part in content for text in _texts(part)]
    return [content] if isinstance(content, str) else []


__all__ = ["Registry", "Taken", "Unloadable", "absent", "advice", "load", "load_installed", "recorded", "used"]
