"""What does a token cost after a context of 1k, 10k and 100k tokens? Time to read, time to write, bytes of the state.

    python benchmarks/generation.py [ARCHITECTURE ...]

Models of width 64 and two layers, untrained, one row, one thread, float32. Each context is read once, in chunks of 512
tokens; but full attention, which takes ten minutes and more to read 100k, goes on from 100k keys and values drawn at
random: what they hold makes no difference to the time. Then come 60 rounds over all models and contexts, in each 8
tokens written from the end of the context, so that what else the machine does falls on all alike. Prints a table in
Markdown: the median of the rounds, between which times the middle half of them lies, and the fastest. Times are of the
processor, which on one thread of a machine that does nothing else are those of the clock.
"""

import platform
import sys
import time
from datetime import UTC, datetime

import torch
from tqdm import tqdm

from solomonic import LanguageModel, __version__, preset
from solomonic.inference.generation import read, stream
from solomonic.inference.sampling import Sampling
from solomonic.inference.sessions import Session

LENGTHS, CHUNK, ROUNDS, TOKENS = (1_000, 10_000, 100_000), 512, 60, 8
SAMPLING = Sampling(temperature=1.0)


def unread(model: LanguageModel, length: int) -> Session:
    """As after `length` tokens."""
    state = model.init_state(1, length)
    for tensor in (tensor for layer in state["layers"] for tensor in layer.values()):
        tensor.normal_(generator=torch.Generator().manual_seed(2))
    state["position"] += length
    return Session(state, (0,))


def main(*archs: str) -> None:
    torch.set_num_threads(1)
    archs = archs or ("bmojo", "mamba2", "sliding_window", "transformer")
    models, sessions, rates = {}, {}, {}
    for arch in archs:
        torch.manual_seed(0)
        models[arch] = LanguageModel(preset(arch, vocab_size=256, d_model=64, n_layers=2)).eval()
        for length in LENGTHS:
            if length > 10_000 and not all(block.mixer.bounded for block in models[arch].blocks):
                sessions[arch, length] = unread(models[arch], length)
                continue
            text = torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(1)).tolist()
            began = time.process_time()
            for session in tqdm(
                read(models[arch], Session().then(text), CHUNK), f"{arch} reads {length:,}", leave=False
            ):
                sessions[arch, length] = session
            rates[arch, length] = length / (time.process_time() - began)
    times = {cell: [] for cell in sessions}
    for _ in tqdm(range(ROUNDS), "rounds", leave=False):
        for (arch, length), session in sessions.items():
            began = time.process_time()
            for _ in stream(models[arch], session, SAMPLING, max_tokens=TOKENS):
                pass
            times[arch, length].append(1e3 * (time.process_time() - began) / TOKENS)

    print(f"solomonic {__version__}, torch {torch.__version__}, Python {platform.python_version()}, ", end="")
    print(f"{platform.machine()}, one thread, {datetime.now(UTC):%Y-%m-%d}\n")
    heads = ("model", "context", "ms a token, median", "middle half", "fastest", "tokens read/s", "state, bytes")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for (arch, length), taken in times.items():
        low, middle, high = torch.tensor(taken).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        size = sessions[arch, length].state_bytes
        rate = f"{rates[arch, length]:,.0f}" if (arch, length) in rates else "not read"
        row = (
            f"`{arch}`",
            f"{length:,}",
            f"{middle:.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{min(taken):.2f}",
            rate,
            f"{size:,}",
        )
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
