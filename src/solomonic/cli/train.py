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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import get_args

import torch

from .._utils import jsontext
from .._utils.machine import check_fits
from .._utils.plugins import advice
from .._utils.spelling import Unknown, choose, counted, message_of, paragraph, unknown
from ..checkpoints.formats import check_tokenizer, read_folder
from ..checkpoints.tensors import digest
from ..data.tokenizer import Tokenizer
from ..mixers import MIXERS
from ..mixers.bmojo import COMBINE, READOUTS, SCORES
from ..model import LanguageModel, ModelConfig, sizes
from ..presets import PRESETS, preset
from ._device import device
from ._numbers import COUNT, real, whole
from ._options import add_alias, add_device, add_dtype, add_field, add_number, add_plugin, add_seed

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
    "block": "tokens after which the slots are renewed (default: the window)",
    "state_size": "rows of the fading memory's state",
    "expand": "inner width of the fading memory of B'MOJO, times d_model (default: 2; as published 1)",
    "fading": "fading memory of B'MOJO: " + ", ".join(name for name, mixer in MIXERS.items() if mixer.is_fading),
    "score": f"admission score of B'MOJO: {', '.join(SCORES)}",
    "tied": "yes or no: the window's projections give the keys and values of the fading memory too",
    "conv": "width of the short convolution of B'MOJO, 0 for none",
    "readout": f"how B'MOJO reads the fading memory: {', '.join(READOUTS)}",
    "combine": f"how B'MOJO joins its readouts: {', '.join(COMBINE)} (default: by the readout)",
    "slot_decay": "decay of kept tokens, at first where it is learned, 0 for none (default: a constant of the layer)",
    "learned_decay": "yes or no: the decay is learned, and logits lose it too (default: where the score is learned)",
    "d_ff": "width of the MLP (default: as many parameters as the Transformer's)",
    "tie_embeddings": "yes or no: the head is the embeddings",
}
"""Settings of a named model, of `preset`."""

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}

CARRY = 3
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
    add_plugin(what)
    what.add_argument("--from", dest="source", type=Path, metavar="DIR", help="go on from the weights of this folder")
    what.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json (default: bytes)")
    parameters = inspect.signature(preset).parameters
    for name, about in DIALS.items():
        parameter = parameters[name]
        types = {parameter.annotation, *get_args(parameter.annotation)}
        kind = _yes if bool in types else real() if float in types else str if str in types else whole()
        default = SIZES.get(name, parameter.default)
        default = {True: "yes", False: "no", None: None}[default] if bool in types else default
        about += "" if default is None else f" (default {default})"
        what.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=about)

    how = command.add_argument_group("training")
    add_number(how, "--steps", whole(COUNT), 2000, "N", "steps")
    add_number(how, "--batch-size", whole(), 16, "N", "rows a step, of all processes")
    add_number(how, "--length", whole(), 256, "T", "tokens a row")
    add_number(how, "--accumulate", whole(), 1, "N", "micro-batches a step")
    how.add_argument(
        "--carry",
        type=whole(COUNT),
        nargs="?",
        const=CARRY,
        default=0,
        metavar="N",
        help=f"carry window and fading memory from row to row, N rows on in one place (default {CARRY}), then begin at another",
    )
    lookup = "share of rows that read other rows again, which trains the use of a store"
    add_number(how, "--lookup", real(), 0.0, "X", lookup)
    how.add_argument("--lr", type=real(), default=2e-3, metavar="X", help="highest learning rate (default 2e-3)")
    how.add_argument(
        "--warmup",
        type=real(1, least=0),
        default=0.05,
        metavar="X",
        help="share of the steps in which the rate rises (default 0.05)",
    )
    how.add_argument(
        "--weight-decay", type=real(least=0), default=0.1, metavar="X", help="weight decay of matrices (default 0.1)"
    )
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
        help="share of rows without fading memories at first (default 0; 0.5 with --lookup)",
    )
    add_seed(how)
    add_dtype(how, "bfloat16 where the device has it; weights are float32", tuple(PRECISIONS))
    add_alias(how, "--precision", dest="dtype", choices=["no", "bf16"])
    how.add_argument("--fsdp", action="store_true", help="shard the model over the processes (FSDP2)")
    add_device(how)
    add_alias(how, "--cpu", dest="device", action="store_const", const="cpu")

    text = command.add_argument_group("text and records")
    add_field(text)
    add_number(text, "--held-out", real(), 0.05, "X", "share held out to score")
    text.add_argument("--held-out-data", nargs="+", metavar="PATH", help="text to score instead of a share of DATA")
    add_number(text, "--log-every", whole(), 10, "N", "steps between entries of the log")
    text.add_argument(
        "--eval-every", type=whole(), metavar="N", help="steps between evaluations (default: ten in a run)"
    )
    text.add_argument(
        "--save-every", type=whole(), metavar="N", help="steps between checkpoints (default: twenty in a run)"
    )
    add_number(text, "--eval-tokens", whole(), 65536, "N", "tokens an evaluation reads")


def run(args: argparse.Namespace, words: list[str]) -> int:
    from accelerate.utils import broadcast_object_list

    from .._utils.files import locked, owned, sweep, write
    from .._utils.progress import Progress
    from ..checkpoints import folder
    from ..data.corpus import Document, documents, library
    from ..training import rows as text
    from ..training.card import card
    from ..training.config import RunConfig
    from ..training.text import build_accelerator, train

    if not str(args.out).isprintable():
        raise ValueError(f"--out: expected a name that can be printed, as TensorBoard takes it, got {str(args.out)!r}")
    if args.fading_dropout is None:
        args.fading_dropout = 0.5 if args.lookup else 0.0
    names = set(inspect.signature(RunConfig).parameters)
    settings = {name: value for name, value in vars(args).items() if name in names}
    config = RunConfig(**settings | {"precision": _precision(args.dtype)})
    on_cpu = _on_cpu(args.device)
    if not 0 <= args.held_out < 1:
        raise ValueError(f"--held-out: expected a share in [0, 1), got {args.held_out}")
    work = args.out / "run"
    record, path = args.out / "training.json", work / "checkpoint.safetensors"
    owned(args.out, "a run", "run/tokens.json", "training.json")
    if args.resume and record.exists():
        print(paragraph(f"{args.out} is trained already"))
        return 0
    if not args.resume and (path.exists() or (args.out / "config.json").exists()):
        raise ValueError(f"--out: {args.out} holds a model or a run; add --resume to go on, or name another folder")

    torch.manual_seed(config.seed)
    tokenizer = _tokenizer(args)
    try:
        model, source = _model(args, tokenizer)
    except Unknown as error:
        raise ValueError(f"{error}{_plugins_of(path)}") from None
    accelerator = build_accelerator(config, work, on_cpu)
    named = args.data or library()

    held = ExitStack()

    def prepare() -> str | None:
        """Take the lock of the run and make its tokens; why that cannot be, or None."""
        of = [[str(Path(x).resolve()) for x in paths or ()] for paths in (args.data, args.held_out_data)]
        origin = [*of, args.field, args.held_out, hashlib.blake2b(tokenizer.to_json().encode()).hexdigest()]
        try:
            held.enter_context(locked(args.out, "training there", folder=True))
            sweep(args.out)
            sweep(work)
            before = text.origin(work) if args.resume else None
            if before not in (None, origin) and path.exists():
                raise ValueError(
                    f"{path}: expected a run on this data, field, held-out share and tokenizer, got one on others; go "
                    "on with those that it was begun with, or train into another folder"
                )
            if before != origin:
                with Progress(unit="byte", what="read", leave=False) as bar:

                    def texts(paths: Sequence[str | Path]) -> Iterator[Document]:
                        for document in documents(paths, args.field):
                            yield document
                            bar.update(len(document.text))

                    scored = args.held_out_data and (lambda: texts(args.held_out_data))
                    text.prepare(work, lambda: texts(named), scored, args.held_out, tokenizer, origin)
        except (ValueError, OSError) as error:
            with suppress(OSError):
                work.rmdir()  # where nothing came to be in it
            return message_of(error)
        return None

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
                run = accelerator, model, tokenizer, data, config, path, args.resume, report, source
                trained, done = train(*run)
        finally:
            accelerator.end_training()
        if trained is not None:
            sources = [str(x) for x in args.data] or ["the Python library's sources on the machine that trained it"]
            command = shlex.join(["solomonic", *words])
            page = card(args.out.resolve().name, trained, tokenizer, data, sources, config, done, command)
            folder.save(args.out, trained, tokenizer, page)
            content = {
                "length": config.length,
                "parameters": sum(p.numel() for p in trained.parameters()),
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
            print(paragraph(f"{args.out} has the model; README.md in it is its card, and run/ may be deleted"))
        return 0


def _precision(dtype: str | None) -> str | None:
    """Of products, as accelerate names it; None where the device decides."""
    return None if dtype is None else choose("dtype", dtype, PRECISIONS | {name: name for name in PRECISIONS.values()})


def _on_cpu(name: str | None) -> bool:
    """Whether to leave an accelerator alone. Which of several a process has is decided by who starts it."""
    if name is None:
        return False
    where = device(name)
    if where.type != "cpu" and where.index is not None:
        raise ValueError(
            f"--device: expected {where.type}, got {name!r}; the environment that starts a process says which one it has"
        )
    return where.type == "cpu"


def _tokenizer(args: argparse.Namespace) -> Tokenizer:
    if args.source and args.tokenizer:
        raise ValueError("--tokenizer: the model of --from has its own; leave one of them out")
    if args.source and (args.source / "tokenizer.json").exists():
        check_tokenizer(args.source)
        return Tokenizer.load(args.source)
    return Tokenizer.load(args.tokenizer) if args.tokenizer else Tokenizer.for_bytes()


def _model(args: argparse.Namespace, tokenizer: Tokenizer) -> tuple[LanguageModel, str | None]:
    """And, of --from, the digest of the weights that it begins with."""
    dials = {name: value for name in DIALS if (value := getattr(args, name)) is not None}
    file = Path(args.model)
    if args.source or file.suffix == ".json":
        what = "--from" if args.source else "--model FILE"
        if dials:
            raise ValueError(f"--{next(iter(dials)).replace('_', '-')}: sizes are those of {what}; leave it out")
        config, tensors = read_folder(args.source) if args.source else (_settings(file, tokenizer), None)
    elif args.model in PRESETS:
        config, tensors = preset(args.model, vocab_size=tokenizer.vocab_size, **SIZES | dials), None
    else:
        raise unknown("model", args.model, [*PRESETS, "FILE.json"])
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


def _plugins_of(checkpoint: Path) -> str:
    """What to add to the message for an unknown name, where the run is of a plug-in that is not loaded."""
    from ..checkpoints.training import load

    try:
        return advice(load(checkpoint)[1], checkpoint)
    except (ValueError, OSError):
        return ""


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
