import sys

import pytest

from solomonic._utils import plugins

from . import EMA, TASK


def unload() -> None:
    for registry in plugins._registries:
        for name in registry.added:
            del registry[name]
    for name in plugins._loaded:
        sys.modules.pop(name, None)
    plugins._loaded.clear()
    plugins._to_load.cache_clear()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder, with two plug-ins in it; whatever a test loads is unloaded."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ema.py").write_text(EMA)
    (tmp_path / "echo.py").write_text(TASK)
    unload()
    yield tmp_path
    unload()
