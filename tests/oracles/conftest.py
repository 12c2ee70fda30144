"""Libraries that are compared with run in plain torch, whatever kernels are installed."""

import inspect
import sys

import pytest


@pytest.fixture(autouse=True)
def plain_torch(monkeypatch):
    """`transformers` wraps a function in one that prefers a GPU package's kernel; the wrapped one is plain torch."""
    for name in ("mamba2", "qwen3_next"):
        module = sys.modules.get(f"transformers.models.{name}.modeling_{name}")
        for key, value in list(vars(module).items()) if module else []:
            if inspect.isfunction(value) and hasattr(value, "__wrapped__"):
                monkeypatch.setattr(module, key, inspect.unwrap(value))
