"""Stochastic realization: what state of the past is sufficient for the future, and the linear system that carries it."""

from .bilinear import Bilinear
from .identify import Identified, identify
from .linear import Linear, Markov, fit

__all__ = ["Bilinear", "Identified", "Linear", "Markov", "fit", "identify"]
