"""A stream whose source switches and returns: how old the eidetic memory is, and whether it is worth having.

    python benchmarks/switching.py PATH... [--out runs/switching] [--seeds N]

PATH are texts as files, of different kinds; the sources of the Python library are one more. Of each kind the first half is
trained on and the second is kept back; both come in turn, `PIECE` bytes of each. The `LAYERS`, B'MOJO without slots, with
them, and with slots whose scores alone fade, are trained with `solomonic train --carry 8` on the stream of the first
halves, and read one of the second halves, from nothing to its end in one state. Printed are bits per byte by distance from the last
switch, and the median age of the slots in the middle of each piece, in bytes.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
import torch
from command_common import existing_file, new_folder, solomonic

from solomonic.checkpoints.folder import load
from solomonic.cli._table import table
from solomonic.data.corpus import library
from solomonic.evaluation.score import nats
from solomonic.model import LanguageModel
from solomonic.ops.memory_attention.state import memory_positions

PIECE, LENGTH, CHUNK = 5_000, 200_000, 500
DISTANCES = {"0 to 255": (0, 256), "256 to 1,023": (256, 1024), "from 1,024": (1024, PIECE)}
LAYERS = {
    "no slots": "--capacity 0",
    "slots": "--capacity 32",
    "slots whose scores alone fade": "--capacity 32 --learned-decay no",
}
SETTINGS = (
    "--carry 8 --d-model 64 --n-layers 2 --window 32 --state-size 16 --batch-size 8 --length 256 --steps 900 --lr 5e-3"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("paths", nargs="+", type=existing_file)
    parser.add_argument("--out", type=new_folder, default=Path("runs/switching"))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    texts = [path.read_bytes() for path in args.paths] + [b"".join(path.read_bytes() for path in library())]
    args.out.mkdir(parents=True, exist_ok=True)
    learnt = args.out / "stream.txt"
    learnt.write_bytes(in_turn([text[: len(text) // 2] for text in texts]))
    stream = in_turn([text[len(text) // 2 :] for text in texts])[:LENGTH]
    rows: dict[str, list[dict[str, float]]] = {which: [] for which in LAYERS}
    for seed in range(args.seeds):
        for which, found in rows.items():
            model = trained(learnt, args.out / f"{which} {seed}", LAYERS[which], seed)
            found.append(read(model, stream))
            print(f"{which}, seed {seed}: {json.dumps(found[-1])}", flush=True)
    names = list(rows["slots"][0])
    print(
        table(("bits a byte", *names), [(which, *(spread(found, n) for n in names)) for which, found in rows.items()])
    )


def in_turn(texts: list[bytes]) -> bytes:
    """A piece of each text, then the next piece of each, as long as all last."""
    count = min(map(len, texts)) // PIECE
    return b"".join(text[i * PIECE : (i + 1) * PIECE] for i in range(count) for text in texts)


def trained(text: Path, out: Path, layer: str, seed: int) -> LanguageModel:
    command = ["train", str(text), "--out", str(out), "--model", "bmojo", *layer.split()]
    command += [*SETTINGS.split(), "--seed", str(seed), "--resume"]
    solomonic(*command)
    return load(out)[0].eval()


@torch.inference_mode()
def read(model: LanguageModel, stream: bytes) -> dict[str, float]:
    """Bits per byte by distance from the last switch, and the median age of the slots of each layer that has some."""
    tokens = torch.tensor(list(stream))[None]
    state, bits = None, []
    ages: dict[int, list[float]] = {i: [] for i, layer in enumerate(model.config.layers) if layer.capacity}
    for first in range(0, len(stream) - 1, CHUNK):
        part = tokens[:, first : first + CHUNK + 1]
        logits, state = model(part[:, :-1], state)
        bits.append(nats(logits, part[:, 1:])[0] / np.log(2))
        position = state["position"]
        if (first + CHUNK) % PIECE == PIECE // 2:
            for i, found in ages.items():
                attention, config = state["layers"][i]["attention"], model.config.layers[i]
                at = memory_positions(attention, position, config.block_size, config.exact)[0]
                found.append((position[0] - at[at >= 0]).float().median().item())
    scored = torch.cat(bits).numpy()
    distance = np.arange(1, len(scored) + 1) % PIECE  # of the byte that is predicted
    later = np.arange(1, len(scored) + 1) >= PIECE
    result = {"all": float(scored.mean())}
    for name, (first, last) in DISTANCES.items():
        result[name] = float(scored[later & (distance >= first) & (distance < last)].mean())
    return result | {f"age, layer {i}": median(found) for i, found in ages.items()}


def spread(found: list[dict[str, float]], name: str) -> str:
    values = [result[name] for result in found if name in result]
    if not values:
        return ""
    digits = 0 if name.startswith("age") else 3
    return f"{mean(values):,.{digits}f}" + (f" ± {stdev(values):,.{digits}f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
