"""State composition (PICASO, arXiv 2502.17605): the states of chunks that were read apart combine into one.

Chunk k takes any state S to P_k S + S_k. Its log decay log P_k (`ops.clock`) and S_k, its state when read from
nothing, are all there is to know of it. To read the chunks in some order gives one state an order; the methods
differ in which orders they average:

    picaso      all N! orders: the result does not depend on the order given
    cyclic      the N cyclic shifts of the order given
    sequence    the order given
    soup        none: the mean of S_k, as if no chunk had forgotten any other
"""

from torch import Tensor

from ..._utils.spelling import choose
from . import reference, weighted

BACKENDS = {"reference": reference.compose, "weighted": weighted.compose}
METHODS = tuple(weighted.METHODS)


def compose(states: Tensor, log_decay: Tensor, how: str, backend: str = "weighted") -> Tensor:
    """states (N, B, H, ...), log_decay (N, B, H) <= 0, of N chunks in their order -> (B, H, ...), in float32.

    With a decay for each key channel states are (N, B, H, ..., K) and log_decay (N, B, H, K): each channel by itself.
    Exact for transitions that are a multiple of the identity, a channel at a time. The delta rule's are not: what a
    chunk wrote at the keys of another is added, where reading on would have corrected it. ValueError for an unknown
    backend.
    """
    return choose("backend", backend, BACKENDS)(states.float(), log_decay.float(), how)
