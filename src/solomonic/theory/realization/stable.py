"""The nearest stable dynamics: each pole outside a disc moves along its radius to the rim, the others stay."""

import numpy as np
from scipy.linalg import schur

from .linear import spectral_radius

Array = np.ndarray


def nearest_stable(A: Array, radius: float) -> Array:
    """A (n, n) with its eigenvalues of modulus > `radius` at `radius`, angles kept, by its real Schur form A = Z T Z^T.

    A block of T with a pole outside is scaled as a whole; what is above the diagonal stays.
    """
    if spectral_radius(A) <= radius:
        return A
    T, Z = schur(A)
    i = 0
    while i < len(T):
        size = 2 if i + 1 < len(T) and T[i + 1, i] != 0 else 1
        block = T[i : i + size, i : i + size]
        T[i : i + size, i : i + size] = block * min(1.0, radius / max(spectral_radius(block), 1e-300))
        i += size
    return Z @ T @ Z.T


__all__ = ["nearest_stable"]
