"""What the commands that write text share: their options, the model and how it draws tokens."""

import argparse
import secrets
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from .._utils.files import locked
from .._utils.machine import check_fits
from ..checkpoints.folder import load
from ..data.tokenizer import Tokenizer
from ..inference.sampling import Sampling
from ..mixers.bmojo import BMojoConfig
from ..model import LanguageModel
from ._device import device, dtype
from ._numbers import COUNT, real, whole
from ._options import add_device, add_dtype, add_k, add_model, add_number, add_seed, k_of


def add_options(command: argparse.ArgumentParser, max_tokens: int) -> None:
    add_model(command)
    add_number(command, "--max-tokens", whole(COUNT), max_tokens, "N", "tokens to write at most")
    add_number(command, "--temperature", real(), 0.8, "T", "temperature; 0 draws the likeliest token always")
    add_number(command, "--top-p", real(), 0.95, "P", "draw from the likeliest tokens that make up P")
    command.add_argument(
        "--top-k", type=whole(COUNT), metavar="K", help="draw from the K likeliest tokens (default: all)"
    )
    add_seed(command, default=None)
    add_device(command)
    add_dtype(command)
    command.add_argument(
        "--session", metavar="FILE", help="go on from FILE, where it is there, and save the session in it"
    )
    add_memory(command)
    command.add_argument(
        "--explain",
        action="store_true",
        help="print the stored passages that were attended to on standard error (--memory)",
    )


def add_memory(command: argparse.ArgumentParser) -> None:
    command.add_argument("--memory", metavar="URI", help="store of this model to attend to (`solomonic memory add`)")
    add_k(command)
    command.add_argument(
        "--approximate", action="store_true", help="search the store approximately, which is faster for a large one"
    )
    rate = "rate at which stored tokens fade, by the store's clock (default 0)"
    command.add_argument("--rate", type=real(), metavar="R", help=rate)
    sharpness = "how many times as far apart the logits are of what is found; above 1 the best gets more (default 1)"
    command.add_argument("--sharpness", type=real(1000, 0.001), metavar="S", help=sharpness)
    command.add_argument(
        "--hedge", action="store_true", help="mix with the model alone, and with --rate 0, by how well each predicts"
    )


def check_memory(args: argparse.Namespace) -> None:
    """ValueError for options of a store without one, and for those that do not go together."""
    names = ("approximate", "explain", "hedge", "k", "rate", "remember", "sharpness")
    given = [f"--{name}" for name in names if (value := getattr(args, name, None)) is not None and value is not False]
    if args.memory is None and given:
        raise ValueError(f"{', '.join(given)}: expected --memory beside it, the store that it speaks of, got none")
    if args.k is not None and args.k < 1:
        raise ValueError(f"--k: expected a whole number >= 1, got {args.k}")
    if args.hedge and getattr(args, "remember", None) is not None:
        raise ValueError("--hedge reads a store and --remember writes one; leave one of them out")


def held_session(args: argparse.Namespace) -> AbstractContextManager[None]:
    """The right to read the file of --session and to write it, where there is one."""
    return locked(args.session, "using this session") if args.session is not None else nullcontext()


@contextmanager
def remembering(
    args: argparse.Namespace, model: LanguageModel, tokenizer: Tokenizer, on_error: str = "continue"
) -> Iterator[LanguageModel]:
    """The model, with the store of --memory where there is one; what --explain asks for is printed at the end.

    on_error: of a store that goes away meanwhile, "continue" without it, with a warning, or "raise".
    """
    if args.memory is None:
        yield model
        return
    from ..memory import open_store
    from ..retrieval.attach import Attached
    from ..retrieval.hedge import Hedged
    from ..retrieval.remember import Talk
    from ._lookup import warn_unless_it_looks_up
    from ._passages import Heard, naming_damage

    explain, name = getattr(args, "explain", False), getattr(args, "remember", None)
    k = k_of(args)
    rate, sharpness = args.rate or 0.0, 1.0 if args.sharpness is None else args.sharpness
    with (
        naming_damage(),
        open_store(args.memory, write=name is not None, on_error=on_error, approximate=args.approximate) as store,
    ):
        check_found(model, k)
        heard = Heard(store) if explain else None
        reader: Any  # it is called as a model is
        attached = Attached(model, store, k=k, rate=rate, sharpness=sharpness, watch=heard)
        warn_unless_it_looks_up(args.model, model, [shape.layer for shape in store.schema.layers])
        if args.hedge:
            fresh = [Attached(model, store, k=k, sharpness=sharpness, watch=heard)] if rate else []
            reader = Hedged([model, *fresh, attached])
            yield reader
        elif name is None:
            reader = attached
            yield reader
        else:
            with store.document(name, session=args.session) as writing:
                reader = Talk(attached, tokenizer, writing)
                yield reader
                reader.finish()
        if heard is not None:
            print("\n" + heard.table(3), file=sys.stderr)


def check_found(model: LanguageModel, k: int) -> None:
    """ValueError where the `k` tokens that each head finds for each query of a call do not fit the memory."""
    from ..retrieval.attach import LONGEST

    width = model.config.d_model
    layers = [layer for layer in model.config.layers if isinstance(layer, BMojoConfig) and layer.capacity]
    most = max((layer.n_heads * layer.kv_heads * (width // layer.n_heads) for layer in layers), default=0)
    check_fits(2 * 4 * LONGEST * most * k, f"--k {k:,}: what the heads of a layer find")


def opened(args: argparse.Namespace) -> tuple[LanguageModel, Tokenizer, Sampling]:
    check_memory(args)
    if args.max_tokens < 0:
        raise ValueError(f"--max-tokens: expected a whole number >= 0, got {args.max_tokens}")
    seed = secrets.randbits(32) if args.seed is None else args.seed
    sampling = Sampling(args.temperature, args.top_k, args.top_p, seed)
    return *load(args.model, device(args.device), dtype(args.dtype)), sampling
