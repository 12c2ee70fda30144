"""Train a language model on text, into a folder that Hugging Face's tools read.

    solomonic train books/ --model bmojo --out runs/books
    torchrun --nproc-per-node 2 -m solomonic train books/ --out runs/books

DATA are files and folders of text, JSON lines or parquet; without any, the Python library's own sources. The run keeps
its checkpoint in OUT/run; with --resume the same command goes on from there, after a crash as after Ctrl-C.
"""

import argparse
import hashlib
import inspect
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import get_args

import torch

from .._utils import jsontext
from .._utils.machine import check_fits
from .._utils.spelling import counted, message_of, paragraph, unknown
from ..checkpoints.formats import check_tokenizer, read_folder
from ..checkpoints.tensors import digest
from ..data.tokenizer import Tokenizer
from ..mixers import MIXERS
from ..mixers.bmojo import COMBINE, READOUTS, SCORES
from ..model import LanguageModel, ModelConfig, sizes
from ..presets import PRESETS, preset
from ._device import add_threads
from ._numbers import COUNT, real, whole

READS, MODELS, MAKES = ("data", "held_out_data", "tokenizer"), ("source",), ("out",)
SIZES = {"d_model": 256, "n_layers": 6, "window": 64, "capacity": 64, "state_size": 32}
"""Where they differ from `preset`: about five million parameters."""
DIALS = {
    "d_model": "width",
    "n_layers": "layers",
    "n_heads": "heads (default: of 64 dims, four at least)",
    "n_kv_heads": "heads of keys and values (default: as many; of bmojo one for four)",
    "window": "tokens of the window",
    "capacity": "slots of the eidetic memory, 0 for none",
    "block": "tokens after which it is renewed (default: the window)",
    "state_size": "rows of the fading memory's state",
    "expand": "its inner width in B'MOJO, times d_model (default: 2; as published 1)",
    "fading": "fading memory of B'MOJO: " + ", ".join(name for name, mixer in MIXERS.items() if mixer.is_fading),
    "score": f"what says which tokens B'MOJO keeps: {', '.join(SCORES)}",
    "tied": "yes or no: fading keys and values by the projections of the window's",
    "conv": "width of the short convolution of B'MOJO, 0 for none",
    "readout": f"how B'MOJO reads the fading memory: {', '.join(READOUTS)}",
    "combine": f"how its readouts are joined: {', '.join(COMBINE)} (default: by the readout)",
    "slot_decay": "what the scores of kept tokens lose, 0 for nothing (default: a constant of the layer)",
    "d_ff": "width of the MLP (default: as many parameters as the Transformer's)",
    "tie_embeddings": "yes or no: the head is the embeddings",
}
"""Settings of a named model, of `preset`."""

CARRY = 8
"""Steps in one place: longer ones cost what other places would have taught (docs/log.md)."""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("data", nargs="*", metavar="DATA", help="files and folders (default: Python's own library)")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the model")
    command.add_argument("--resume", action="store_true", help="go on from OUT's checkpoint, if it has one")

    what = command.add_argument_group("model", "the sizes are those of a named model")
    what.add_argument(
        "--model",
        default="bmojo",
        metavar="M",
        help=f"a name ({', '.join(PRESETS)}) or a JSON file of settings (default bmojo)",
    )
    what.add_argument("--from", dest="source", type=Path, metavar="DIR", help="go on from the weights of this folder")
    what.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json (default: bytes)")
    parameters = inspect.signature(preset).parameters
    for name, about in DIALS.items():
        parameter = parameters[name]
        types = {parameter.annotation, *get_args(parameter.annotation)}
        kind = _yes if bool in types else real() if float in types else str if str in types else whole()
        default = SIZES.get(name, parameter.default)
        default = {True: "yes", False: "no"}[default] if bool in types else default
        about += "" if default is None else f" (default {default})"
        what.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=about)

    how = command.add_argument_group("training")
    how.add_argument("--steps", type=whole(COUNT), default=2000, metavar="N", help="steps (default 2000)")
    how.add_argument(
        "--batch-size", type=whole(), default=16, metavar="N", help="rows a step, of all processes (default 16)"
    )
    how.add_argument("--length", type=whole(), default=256, metavar="N", help="tokens a row (default 256)")
    how.add_argument("--accumulate", type=whole(), default=1, metavar="N", help="micro-batches a step (default 1)")
    how.add_argument(
        "--carry",
        type=whole(COUNT),
        nargs="?",
        const=CARRY,
        default=0,
        metavar="N",
        help=f"carry the state from row to row, N steps on in one place (default {CARRY}), then begin at another",
    )
    how.add_argument(
        "--lookup",
        type=real(),
        default=0.0,
        metavar="X",
        help="share of rows that read again what others hold, so that a store is of use (default 0: it is not)",
    )
    how.add_argument("--lr", type=real(), default=2e-3, metavar="X", help="highest learning rate (default 2e-3)")
    how.add_argument(
        "--warmup",
        type=real(1, least=0),
        default=0.05,
        metavar="X",
        help="share of the steps in which the rate rises (default 0.05)",
    )
    how.add_argument("--weight-decay", type=real(least=0), default=0.1, metavar="X", help="of matrices (default 0.1)")
    how.add_argument(
        "--clip",
        type=real(float("inf"), least=0),
        default=1.0,
        metavar="X",
        help="largest norm of the gradient (default 1)",
    )
    how.add_argument(
        "--fading-dropout",
        type=real(),
        metavar="X",
        help="share of rows at first whose fading memories are not read beside attention (default 0; 0.5 with --lookup)",
    )
    how.add_argument(
        "--seed", type=whole(COUNT, least=0), default=0, metavar="N", help="of weights and rows (default 0)"
    )
    how.add_argument("--precision", choices=["no", "bf16"], help="of products (default: bf16 where the device has it)")
    how.add_argument("--fsdp", action="store_true", help="shard the model over the processes (FSDP2)")
    how.add_argument("--cpu", action="store_true", help="on the processor, even where there is an accelerator")
    add_threads(how)

    text = command.add_argument_group("text and records")
    text.add_argument("--field", default="text", metavar="F", help="of JSON lines and parquet (default text)")
    text.add_argument(
        "--held-out", type=real(), default=0.05, metavar="X", help="share held out to score (default 0.05)"
    )
    text.add_argument("--held-out-data", nargs="+", metavar="PATH", help="text to score instead of a share of DATA")
    text.add_argument(
        "--log-every", type=whole(), default=10, metavar="N", help="steps between entries of the log (default 10)"
    )
    text.add_argument(
        "--eval-every", type=whole(), metavar="N", help="steps between evaluations (default: ten in a run)"
    )
    text.add_argument(
        "--save-every", type=whole(), metavar="N", help="steps between checkpoints (default: twenty in a run)"
    )
    text.add_argument(
        "--eval-tokens", type=whole(), default=65536, metavar="N", help="tokens an evaluation reads (default 65536)"
    )


def run(chosen: argparse.Namespace, words: list[str]) -> int:
    from accelerate.utils import broadcast_object_list

    from .._utils.files import locked, owned, sweep, write
    from .._utils.progress import Progress
    from ..checkpoints import folder
    from ..data.corpus import Document, documents, library
    from ..training import rows as text
    from ..training.card import card
    from ..training.config import RunConfig
    from ..training.text import build_accelerator, train

    if not str(chosen.out).isprintable():
        raise ValueError(
            f"--out: expected a name that can be printed, as TensorBoard takes it, got {str(chosen.out)!r}"
        )
    if chosen.fading_dropout is None:
        chosen.fading_dropout = 0.5 if chosen.lookup else 0.0
    names = set(inspect.signature(RunConfig).parameters)
    config = RunConfig(**{name: value for name, value in vars(chosen).items() if name in names})
    if not 0 <= chosen.held_out < 1:
        raise ValueError(f"--held-out: expected a share in [0, 1), got {chosen.held_out}")
    work = chosen.out / "run"
    record, path = chosen.out / "training.json", work / "checkpoint.safetensors"
    owned(chosen.out, "a run", "run/tokens.json", "training.json")
    if chosen.resume and record.exists():
        print(paragraph(f"{chosen.out} is trained already"))
        return 0
    if not chosen.resume and (path.exists() or (chosen.out / "config.json").exists()):
        raise ValueError(f"--out: {chosen.out} holds a model or a run; add --resume to go on, or name another folder")

    torch.manual_seed(config.seed)
    tokenizer = _tokenizer(chosen)
    model, source = _model(chosen, tokenizer)
    accelerator = build_accelerator(config, work, chosen.cpu)
    named = chosen.data or library()

    held = ExitStack()

    def prepare() -> str | None:
        """Take the lock of the run and make its tokens; why that cannot be, or None."""
        of = [[str(Path(x).resolve()) for x in paths or ()] for paths in (chosen.data, chosen.held_out_data)]
        origin = [*of, chosen.field, chosen.held_out, hashlib.blake2b(tokenizer.to_json().encode()).hexdigest()]
        try:
            held.enter_context(locked(chosen.out, "training there", folder=True))
            sweep(chosen.out), sweep(work)
            before = text.origin(work) if chosen.resume else None
            if before not in (None, origin) and path.exists():
                raise ValueError(
                    f"{path}: expected a run on this data, field, held-out share and tokenizer, got one on others; go "
                    "on with those that it was begun with, or train into another folder"
                )
            if before != origin:
                with Progress(unit="byte", what="read", leave=False) as bar:

                    def texts(paths) -> Iterator[Document]:
                        for document in documents(paths, chosen.field):
                            yield document
                            bar.update(len(document.text))

                    scored = chosen.held_out_data and (lambda: texts(chosen.held_out_data))
                    text.prepare(work, lambda: texts(named), scored, chosen.held_out, tokenizer, origin)
        except (ValueError, OSError) as error:
            with suppress(OSError):
                work.rmdir()  # where nothing came to be in it
            return message_of(error)

    with held:
        trouble = broadcast_object_list([prepare() if accelerator.is_main_process else None])
        if trouble[0]:
            raise ValueError(trouble[0])
        data = text.read(work, check=False)

        def report(done) -> None:
            if done.losses:
                held_out = f", held out {done.evaluations[-1][1]:.3f} bits a byte" if done.evaluations else ""
                bar.set_note(f"loss {done.losses[-1]:.3f}{held_out}")
            bar.update(done.step - bar.n)
            if done.step == config.steps:
                bar.describe("scoring")

        try:
            with Progress(config.steps, what="train", shown=accelerator.is_main_process) as bar:
                run = accelerator, model, tokenizer, data, config, path, chosen.resume, report, source
                model, done = train(*run)
        finally:
            accelerator.end_training()
        if model is not None:
            sources = [str(x) for x in chosen.data] or ["the Python library's sources on the machine that trained it"]
            command = shlex.join(["solomonic", *words])
            page = card(chosen.out.resolve().name, model, tokenizer, data, sources, config, done, command)
            folder.save(chosen.out, model, tokenizer, page)
            content = {
                "length": config.length,
                "parameters": sum(p.numel() for p in model.parameters()),
                "tokens": config.steps * config.batch_size * config.length,
                "seconds": round(done.seconds, 1),
                "bits_per_byte": done.scores,
                "held_out": done.evaluations,
                "losses": done.losses,
                "command": command,
            }
            write(record, jsontext.write(content, missing=True))
            for length, bits in done.scores.items():
                read = f"read {counted(int(length), 'token')} at a time"
                print(paragraph(f"{bits:.3f} bits per byte of held-out text, {read}"))
            print(paragraph(f"{chosen.out} has the model; README.md in it is its card, and run/ may be deleted"))
        return 0


def _tokenizer(chosen: argparse.Namespace) -> Tokenizer:
    if chosen.source and chosen.tokenizer:
        raise ValueError("--tokenizer: the model of --from has its own; leave one of them out")
    if chosen.source and (chosen.source / "tokenizer.json").exists():
        check_tokenizer(chosen.source)
        return Tokenizer.load(chosen.source)
    return Tokenizer.load(chosen.tokenizer) if chosen.tokenizer else Tokenizer.for_bytes()


def _model(chosen: argparse.Namespace, tokenizer: Tokenizer) -> tuple[LanguageModel, str | None]:
    """And, of --from, the digest of the weights that it begins with."""
    dials = {name: value for name in DIALS if (value := getattr(chosen, name)) is not None}
    file = Path(chosen.model)
    if chosen.source or file.suffix == ".json":
        what = "--from" if chosen.source else "--model FILE"
        if dials:
            raise ValueError(f"--{next(iter(dials)).replace('_', '-')}: sizes are those of {what}; leave it out")
        config, tensors = read_folder(chosen.source) if chosen.source else (_settings(file, tokenizer), None)
    elif chosen.model in PRESETS:
        config, tensors = preset(chosen.model, vocab_size=tokenizer.vocab_size, **SIZES | dials), None
    else:
        raise unknown("model", chosen.model, [*PRESETS, "FILE.json"])
    if tokenizer.vocab_size > config.vocab_size:
        raise ValueError(
            f"expected a tokenizer of at most {config.vocab_size} tokens, as the model has, got {tokenizer.vocab_size}"
        )
    numbers, state = sizes(config)
    check_fits(16 * numbers, f"a model of {numbers:,} parameters, its gradients and the optimizer's moments")
    check_fits(state, "the state of a text")
    model = LanguageModel(config)
    if tensors is None:
        return model.float(), None
    model.load_state_dict(tensors)
    return model.float(), digest(tensors, {})


def _settings(file: Path, tokenizer: Tokenizer) -> ModelConfig:
    """A JSON file of `ModelConfig.to_dict`, or a config.json that has it under "model"."""
    try:
        content = jsontext.read(file, dict)
    except ValueError as error:
        raise ValueError(f"--model: {error}") from None
    settings = content.get("model", content)
    if not isinstance(settings, dict):
        raise ValueError(f'--model: expected an object under "model" in {file}, got {type(settings).__name__}')
    return ModelConfig.from_dict({"vocab_size": tokenizer.vocab_size} | settings)


def _yes(word: str) -> bool:
    if word not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"expected yes or no, got {word!r}")
    return word == "yes"
