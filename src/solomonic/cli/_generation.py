"""What the commands that write text share: their options, the model and how it draws tokens."""

import argparse
import secrets
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from .._utils.files import locked
from .._utils.machine import check_fits
from ..checkpoints.folder import load
from ..data.tokenizer import Tokenizer
from ..inference.generation import Sampling
from ..model import LanguageModel
from ._device import add_device, add_dtype, device, dtype
from ._numbers import COUNT, real, whole


def add_options(command: argparse.ArgumentParser, max_tokens: int) -> None:
    command.add_argument("model", metavar="MODEL", help="folder with config.json, safetensors and tokenizer.json")
    command.add_argument(
        "--max-tokens",
        type=whole(COUNT),
        default=max_tokens,
        metavar="N",
        help=f"tokens to write at most (default {max_tokens})",
    )
    command.add_argument(
        "--temperature", type=real(), default=0.8, metavar="T", help="0: always the likeliest token (default 0.8)"
    )
    command.add_argument(
        "--top-p", type=real(), default=0.95, metavar="P", help="of the likeliest tokens that make up P (default 0.95)"
    )
    command.add_argument("--top-k", type=whole(COUNT), metavar="K", help="of the K likeliest tokens (default: all)")
    command.add_argument(
        "--seed", type=whole(COUNT), metavar="S", help="the same seed draws the same text (default: any)"
    )
    add_device(command)
    add_dtype(command)
    command.add_argument(
        "--session", metavar="FILE", help="go on from FILE, where it is there, and save what the model remembers in it"
    )
    add_memory(command)
    command.add_argument(
        "--explain", action="store_true", help="stored passages that were attended to, on standard error (--memory)"
    )


def add_memory(command: argparse.ArgumentParser) -> None:
    command.add_argument("--memory", metavar="URI", help="a store of this model to attend to (`solomonic memory add`)")
    command.add_argument(
        "--found",
        type=whole(),
        default=4,
        metavar="K",
        help="tokens that a head finds in it for each token (default 4)",
    )
    command.add_argument(
        "--approximate", action="store_true", help="search it approximately: faster, where it is large"
    )
    command.add_argument(
        "--rate", type=real(), default=0.0, metavar="R", help="how fast what is stored fades, by its clock (default 0)"
    )
    command.add_argument(
        "--hedge", action="store_true", help="mix with the model alone, and without --rate, by how well each foretold"
    )


def held_session(chosen: argparse.Namespace) -> AbstractContextManager[None]:
    """The right to read the file of --session and to write it, where there is one."""
    return locked(chosen.session, "using this session") if chosen.session is not None else nullcontext()


@contextmanager
def remembering(
    chosen: argparse.Namespace, model: LanguageModel, tokenizer: Tokenizer, on_error: str = "continue"
) -> Iterator[LanguageModel]:
    """The model, with the store of --memory where there is one; what --explain asks for is printed at the end.

    on_error: of a store that goes away meanwhile, "continue" without it, with a warning, or "raise".
    """
    explain, name = getattr(chosen, "explain", False), getattr(chosen, "remember", None)
    if chosen.memory is None:
        if explain or name is not None or chosen.hedge:
            raise ValueError("--explain, --remember and --hedge are for --memory, the store that they speak of")
        yield model
        return
    from ..memory import open_store
    from ..retrieval.attach import Attached
    from ..retrieval.hedge import Hedged
    from ..retrieval.remember import Talk
    from ._lookup import warn_unless_it_looks_up
    from ._passages import Heard, naming_damage

    if chosen.found < 1 or not 0 <= chosen.rate < float("inf"):
        raise ValueError(f"expected --found >= 1 and --rate >= 0, got {chosen.found} and {chosen.rate}")
    if chosen.hedge and name is not None:
        raise ValueError("--hedge reads a store and --remember writes one; leave one of them out")
    with (
        naming_damage(),
        open_store(chosen.memory, write=name is not None, on_error=on_error, approximate=chosen.approximate) as store,
    ):
        check_found(model, chosen.found)
        heard = Heard(store) if explain else None
        attached = Attached(model, store, k=chosen.found, rate=chosen.rate, watch=heard)
        warn_unless_it_looks_up(chosen.model, model, [shape.layer for shape in store.schema.layers])
        if chosen.hedge:
            fresh = [Attached(model, store, k=chosen.found, watch=heard)] if chosen.rate else []
            yield Hedged([model, *fresh, attached])
        elif name is None:
            yield attached
        else:
            with store.document(name, session=chosen.session) as writing:
                talk = Talk(attached, tokenizer, writing)
                yield talk
                talk.finish()
        if heard is not None:
            print("\n" + heard.table(3), file=sys.stderr)


def check_found(model: LanguageModel, found: int) -> None:
    """ValueError where what a call lays out of `found` tokens a head and query does not fit the memory."""
    from ..retrieval.attach import LONGEST

    layers = [layer for layer in model.config.layers if getattr(layer, "capacity", 0)]
    most = max(
        (layer.n_heads * layer.kv_heads * (model.config.d_model // layer.n_heads) for layer in layers), default=0
    )
    check_fits(2 * 4 * LONGEST * most * found, f"--found {found:,}: what the heads of a layer find")


def opened(chosen: argparse.Namespace) -> tuple[LanguageModel, Tokenizer, Sampling]:
    if chosen.max_tokens < 0:
        raise ValueError(f"--max-tokens: expected a whole number >= 0, got {chosen.max_tokens}")
    seed = secrets.randbits(32) if chosen.seed is None else chosen.seed
    sampling = Sampling(chosen.temperature, chosen.top_k, chosen.top_p, seed)
    return *load(chosen.model, device(chosen.device), dtype(chosen.dtype)), sampling
