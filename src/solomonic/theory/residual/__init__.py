"""Residual stacks for time series: what a layer leaves unpredicted goes to the next, and what is new in it is scored.

`layers`, `surprise` and `stack` are the model, `series` reads a file, `detectors` and `nab` are two published detectors
and the benchmark's scores.
"""

from .stack import Decomposition, Stack, Stretch, stack, stretches

__all__ = ["Decomposition", "Stack", "Stretch", "stack", "stretches"]
