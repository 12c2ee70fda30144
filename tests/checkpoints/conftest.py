"""Models of `transformers` are the reference: in plain torch, and no larger than a test needs."""

from ..oracles.conftest import plain_torch

__all__ = ["plain_torch"]
