"""Sampling: the next token, from the logits of a model. V vocabulary."""

from dataclasses import dataclass
from hashlib import blake2b

from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: from the `top_k` likeliest, and of these from the likeliest that hold `top_p` of the mass.

    Logits are divided by `temperature` first; temperature 0 takes the likeliest token, whatever the other settings. Token
    n of a text depends on the seed, n and the logits alone: it is the same on every machine, in a batch and after an
    interruption. Nucleus sampling (top_p) is of Holtzman et al., arXiv 1904.09751. ValueError for a setting out of range.
    """

    temperature: float = 0.0
    top_k: int | None = None  # None: all
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature: expected a number >= 0, got {self.temperature}")
        if self.top_k is not None and not (type(self.top_k) is int and self.top_k >= 1):
            raise ValueError(f"top_k: expected a whole number >= 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: expected 0 < top_p <= 1, got {self.top_p}")

    def choose(self, logits: Tensor, position: int) -> int:
        """The token at `position` of its text, by the logits (V,) for it. ValueError where they are not finite."""
        logits = logits.double()
        likeliest = int(logits.argmax())
        if not logits[likeliest].isfinite():
            raise ValueError(f"expected finite logits, got {logits[likeliest].item()}; the model's weights are damaged")
        if self.temperature == 0:
            return likeliest
        ids = None
        if self.top_k is not None or self.top_p < 1:
            logits, ids = logits.topk(min(self.top_k or len(logits), len(logits)))
        mass = ((logits - logits.max()) / self.temperature).softmax(-1).cumsum(-1)
        nucleus = mass[: 1 + int((mass[:-1] < self.top_p).sum())]
        rank = int((nucleus[:-1] <= self._uniform(position) * nucleus[-1]).sum())
        return rank if ids is None else int(ids[rank])

    def _uniform(self, position: int) -> float:
        """A number in [0, 1), a function of seed and position alone."""
        digest = blake2b(f"{self.seed} {position}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


GREEDY = Sampling()
"""The likeliest token, always."""

__all__ = ["GREEDY", "Sampling"]
