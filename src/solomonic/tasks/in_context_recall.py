"""In-context recall (MAD, arXiv 2403.17844): key-value pairs, each key asked whenever it comes again.

One sample (vocab_size=6, length=10): keys are the tokens 0-2, values 3-5, `.` is not scored.

    tokens    1 4 0 3 1 4 2 3 0 3
    targets   . . . . 4 . . . 3 .

It is noisy recall (`noisy_recall.py`) without noise, as in MAD's code, with V = 16 and T = 128: that file has the
grammar, the scored positions and the two differences from MAD.
"""

from collections.abc import Iterable

from .noisy_recall import NoisyRecall


class InContextRecall(NoisyRecall):
    """Options:

    vocab_size     V: the first half are keys, the rest values
    length         training length, even, at least 4
    lengths        test lengths, even; None: 1, 2 and 4 times `length`
    train_targets  "next": every next token; "recall": the scored ones
    """

    name = "in_context_recall"
    summary = "recall the values of keys that came before (MAD)"

    def __init__(
        self,
        *,
        vocab_size: int = 16,
        length: int = 128,
        lengths: Iterable[int] | None = None,
        train_targets: str = "next",
    ):
        super().__init__(
            vocab_size=vocab_size,
            noise_tokens=0,
            noise=0,
            length=length,
            lengths=lengths,
            train_targets=train_targets,
        )
