"""A run: rows of text in, a folder that Hugging Face's tools read out. Accelerate spreads it over processes.

The global batch is cut into micro-batches in one fixed order, whatever the number of processes and of accumulation
steps, so that these change the losses by rounding only. On one machine a run is a function of its settings, killed and
resumed or not: what a step reads depends on the step alone, and a checkpoint has all the rest.
"""

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

from ..checkpoints import training as checkpoint
from ..data.tokenizer import Tokenizer
from ..evaluation.text import bits_per_byte, spans
from ..model import LanguageModel, ModelConfig, map_state, state_tensors
from ..ops.precision import has_bfloat16
from ..retrieval.neighbours import Neighbours
from . import log
from .fit import Diverged, Interrupted, TrainConfig, build_optimizer
from .lookup import FOUND, LookupRows
from .rows import Batch, Data, Rows

LENGTHS = (1, 4, 32)
"""At how many times the training length the finished model is scored, where held-out documents reach."""


@dataclass(frozen=True)
class RunConfig(TrainConfig):
    """`batch_size` rows of `length` tokens a step, over all processes, each in `accumulate` micro-batches."""

    length: int = 512
    accumulate: int = 1
    carry: int = 0  # steps that a row goes on for with its state (truncated backpropagation through time); 0: none
    lookup: float = 0.0  # share of the rows that read again what others hold, found as in a store (`lookup`)
    precision: str | None = None  # "no" or "bf16"; None: bf16 where the device has it
    fsdp: bool = False  # shard parameters, gradients and optimizer (FSDP2) instead of copying them (DDP)
    log_every: int = 10  # steps
    eval_every: int | None = None  # steps; None: ten times a run
    save_every: int | None = None  # steps; None: twenty times a run
    eval_tokens: int = 65536  # held-out tokens an evaluation reads, at most

    def __post_init__(self):
        super().__post_init__()
        if self.carry < 0:
            raise ValueError(f"expected carry >= 0, got {self.carry}")
        for name in ("length", "accumulate", "log_every", "eval_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        for name in ("eval_every", "save_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")
        if self.precision not in (None, "no", "bf16"):
            raise ValueError(f"expected precision no or bf16, got {self.precision!r}")

    def often(self, name: str, times: int) -> int:
        return getattr(self, name) or max(1, self.steps // times)


FREE = ("accumulate", "precision", "fsdp", "log_every", "eval_every", "save_every", "eval_tokens")
"""Settings that a resumed run may change: they do not say what is computed."""


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)  # nats a token, of every step
    evaluations: list[tuple[int, float]] = field(default_factory=list)  # (step, bits a byte of held-out text)
    scores: dict[str, float] = field(default_factory=dict)  # length -> bits a byte, of the finished model


def build_accelerator(config: RunConfig, logs: Path, cpu: bool = False) -> Accelerator:
    """One process, or those that torchrun or `accelerate launch` began. `cpu`: even where there is an accelerator."""
    cpu = cpu or not torch.accelerator.is_available()
    device = torch.device("cpu") if cpu else torch.accelerator.current_accelerator()
    precision = config.precision or ("bf16" if has_bfloat16(device) else "no")
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with="tensorboard", project_dir=logs)


def spread(
    accelerator: Accelerator, model: LanguageModel, config: RunConfig
) -> tuple[nn.Module, AcceleratedOptimizer, Callable[[bool], AbstractContextManager]]:
    """Model and optimizer over all processes, and a context for a micro-batch: whether its gradients are exchanged.

    With `fsdp` each block is sharded for itself by PyTorch's `fully_shard`, on any device; Accelerate's own FSDP2,
    which it has for accelerators only, serves whoever asks `accelerate launch` for it.
    """
    if not config.fsdp:
        model, optimizer = accelerator.prepare(model, build_optimizer(model, config))
        return model, optimizer, lambda last: nullcontext() if last else accelerator.no_sync(model)
    if not torch.distributed.is_initialized():
        raise ValueError("--fsdp: expected several processes, got one; begin them with torchrun or accelerate launch")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    model = model.to(accelerator.device)
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)  # an evaluation has no backward pass to do it

    def exchange(last: bool) -> AbstractContextManager:
        model.set_requires_gradient_sync(last)
        return nullcontext()

    return model, accelerator.prepare_optimizer(build_optimizer(model, config)), exchange


def train(
    accelerator: Accelerator,
    model: LanguageModel,
    tokenizer: Tokenizer,
    data: Data,
    config: RunConfig,
    path: Path,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
    source: str | None = None,
) -> tuple[LanguageModel | None, Progress]:
    """Train `model` and give it back whole, on the CPU of the main process, with what the run showed.

    `path` is its checkpoint, read with `resume` where it is there; `source`, where there is one, says of what weights
    the run begins, and `report` is told of each step, and first of those that are done. SIGINT and SIGTERM end the step, save, and raise
    Interrupted; a loss that is not finite raises Diverged and leaves the checkpoint before it, for none is written of
    weights whose loss is not finite. ValueError for settings that cannot be, or a checkpoint of another run or a damaged
    one; OSError when the disk is full.
    """
    world, rank = accelerator.num_processes, accelerator.process_index
    parts = world * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"expected a batch size that {world} processes x {config.accumulate} micro-batches divide, "
            f"got {config.batch_size}"
        )
    if config.carry and model.state_bytes(2 * config.length) != model.state_bytes(2**20):
        raise ValueError("the state of full attention grows without bound, so it is not carried; leave --carry out")
    rows = Rows(data.train, config.length, config.batch_size, config.seed, config.carry)
    if config.lookup:
        if config.batch_size // parts < 2:
            raise ValueError(
                "--lookup: expected two rows or more in a micro-batch, got one; rows find those beside them"
            )
        rows = LookupRows(rows, config.lookup, config.steps, tokenizer.vocab_size, tokenizer.end)
        lookers = _lookers(model)
    share = config.batch_size // parts
    mine = [slice((m * world + rank) * share, (m * world + rank + 1) * share) for m in range(config.accumulate)]
    tied, settings = model.config.tie_embeddings, model.config
    identity = _identity(settings, config, data.digest) | ({} if source is None else {"from": source})

    model, optimizer, exchange = spread(accelerator, model, config)
    bare = accelerator.unwrap_model(model)
    progress, states = Progress(), [None] * config.accumulate
    if resume and path.exists():
        tensors, saved = checkpoint.load(path, identity)
        try:
            rest = checkpoint.restore(bare, optimizer.optimizer, tensors, tied)
            progress = Progress(losses=rest.pop("losses").tolist(), **saved["progress"])
            states = [_carried(bare, rest, part, accelerator.device) for part in mine] if rest else states
        except checkpoint.Damaged as error:
            raise checkpoint.Damaged(f"{path}: {error}") from None
        except (KeyError, TypeError) as error:
            raise checkpoint.Damaged(
                f"{path}: expected the checkpoint of a run, got one without {error}; use a copy"
            ) from None
    log.begin(accelerator, progress.step)
    report(progress)
    every, save_every = config.often("eval_every", 10), config.often("save_every", 20)
    held_out = _held_out(data, config.length, config.eval_tokens)
    losses: list[Tensor] = []
    since = time.monotonic()

    def save() -> None:
        rest = _gathered(accelerator, states) if config.carry else {}
        rest["losses"] = torch.tensor(progress.losses)
        tensors = checkpoint.collect(bare, optimizer.optimizer, rest)
        plain = {name: value for name, value in asdict(progress).items() if name != "losses"}
        if accelerator.is_main_process:
            log.flush(accelerator)
            checkpoint.save(path, tensors, {"identity": identity, "progress": plain})
        accelerator.wait_for_everyone()

    def judge(losses: Tensor, first: int) -> Tensor:
        """The mean of the losses from step `first` on over all processes."""
        mean = accelerator.reduce(losses, "mean").cpu()
        if not mean.isfinite().all():
            bad = int(mean.isfinite().logical_not().nonzero()[0])
            left = f"; the last good checkpoint is {path}" if path.exists() else ""
            raise Diverged(
                f"the loss is {mean[bad]:.3g} at step {first + bad}; try a lower --lr than {config.lr}{left}"
            )
        return mean

    def settle() -> None:
        """Judge the losses since the last time; log their mean."""
        nonlocal since
        if not losses:
            return
        mean = judge(torch.stack(losses), progress.step - len(losses) + 1)
        losses.clear()
        now = time.monotonic()
        seconds, since = now - since, now
        progress.seconds += seconds
        progress.losses += mean.tolist()
        speed = len(mean) * config.batch_size * config.length / max(seconds, 1e-9)
        rate = config.rate(progress.step - 1)
        accelerator.log(
            {"loss": mean.mean().item(), "learning_rate": rate, "tokens_per_second": speed}, step=progress.step
        )

    with _asked_to_stop() as asked:
        while progress.step < config.steps:
            step = progress.step
            if rows.begins(step):
                states = [None] * config.accumulate
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step)
            model.train()
            total = 0.0
            for m, part in enumerate(mine):
                batch = rows.batch(step, part)
                stores = _stores(lookers, batch, accelerator.device) if config.lookup else None
                tokens, targets, segments = (
                    torch.from_numpy(x).to(accelerator.device) for x in (batch.tokens, batch.targets, batch.segments)
                )
                dropped = config.dropped(step)
                if dropped is not None:  # while it warms up for look-ups, a micro-batch has more rows, and shorter ones
                    dropped = dropped[part].repeat(-(-len(tokens) // len(dropped[part])))[: len(tokens)]
                    dropped = dropped.to(accelerator.device)
                before = states[m]
                with exchange(m == config.accumulate - 1), accelerator.autocast():
                    logits, state = model(tokens, before, segments=segments, stores=stores, dropped=dropped)
                    loss = cross_entropy(logits.flatten(0, 1).float(), targets.flatten()) / config.accumulate
                    accelerator.backward(loss)
                total = total + loss.detach()
                if config.carry:
                    states[m] = map_state(torch.Tensor.detach, state)
            accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(total)
            progress.step += 1
            done = progress.step == config.steps
            if done or progress.step % config.log_every == 0:
                settle()
            if held_out is not None and (done or progress.step % every == 0):
                settle()
                bits = bits_per_byte(model, tokenizer, held_out, held_out.shape[1] - 1)
                progress.evaluations.append((progress.step, bits.mean))
                accelerator.log({"held_out_bits_per_byte": bits.mean}, step=progress.step)
                since = time.monotonic()
            stop = asked() if world == 1 else False
            if world > 1 and progress.step % config.log_every == 0:
                stop = bool(accelerator.reduce(torch.tensor(float(asked()), device=accelerator.device)).item())
            if done or stop or progress.step % save_every == 0:
                settle()
                with torch.no_grad(), accelerator.autocast():
                    again, _ = model(tokens, before, segments=segments, stores=stores, dropped=dropped)
                judge(cross_entropy(again.flatten(0, 1).float(), targets.flatten())[None], progress.step + 1)
                save()
            report(progress)
            if stop and not done:
                raise Interrupted(f"stopped at step {progress.step} of {config.steps}; --resume goes on from there")
    if not progress.scores:
        progress.scores = _scores(model, tokenizer, data, config)
        save()
    return _whole(bare, settings, accelerator.is_main_process), progress


def _lookers(model: LanguageModel) -> list[bool | None]:
    """Of each layer, whether scores count in its eidetic memory; None for one that has none, and looks nothing up."""
    mixers = [block.mixer for block in model.blocks]
    found = [getattr(mixer, "learns", None) if getattr(mixer.config, "capacity", 0) else None for mixer in mixers]
    if all(one is None for one in found):
        raise ValueError(
            "--lookup: expected a model with an eidetic memory, whose layers look things up; got one without"
        )
    return found


def _stores(lookers: list[bool | None], batch: Batch, device: torch.device) -> list[Neighbours | None] | None:
    if batch.may_see is None:
        return None
    may_see = torch.from_numpy(batch.may_see).to(device)
    return [None if admit is None else Neighbours(may_see, FOUND, admit) for admit in lookers]


def _held_out(data: Data, length: int, most: int) -> Any:
    """Tokens for `bits_per_byte` at `length`, or at the longest that there is; None where nothing is held out."""
    documents = data.held_out.documents()
    reach = min(length, max((len(tokens) for tokens in documents), default=0) - 1)
    return spans(documents, reach, max(1, most // reach)) if reach >= 1 else None


def _scores(model: Any, tokenizer: Tokenizer, data: Data, config: RunConfig) -> dict[str, float]:
    """Bits a byte at each of `LENGTHS` that a held-out document reaches, all on the same text."""
    longest = max((len(tokens) for tokens in data.held_out.documents()), default=0) - 1
    lengths = [times * config.length for times in LENGTHS if times * config.length <= longest]
    if not lengths:
        return {}
    text = _held_out(data, lengths[-1], config.eval_tokens)
    return {str(length): bits_per_byte(model, tokenizer, text, length).mean for length in lengths}


def _gathered(accelerator: Accelerator, states: list[Any]) -> dict[str, Tensor]:
    """The carried states of all rows, in the order of the global batch."""
    parts = [[accelerator.gather(x) for _, x in state_tensors(state)] for state in states]
    names = [name for name, _ in state_tensors(states[0])]
    return {name: torch.cat(leaves).cpu() for name, *leaves in zip(names, *parts)}


def _carried(model: LanguageModel, rest: dict[str, Tensor], part: slice, device: torch.device) -> Any:
    """The rows `part` of what `_gathered` gave."""
    template = model.init_state(1, 0, "meta")
    leaves = iter([rest[name][part].to(device) for name, _ in state_tensors(template)])
    return map_state(lambda _: next(leaves), template)


def _whole(model: Any, config: ModelConfig, is_main: bool) -> LanguageModel | None:
    tensors = checkpoint.weights(model)
    if not is_main:
        return None
    whole = LanguageModel(config)
    whole.load_state_dict(tensors)
    return whole.eval()


def _identity(model: ModelConfig, config: RunConfig, digest: str) -> dict[str, Any]:
    """What has to be the same for a checkpoint to go on."""
    run = {name: value for name, value in asdict(config).items() if name not in FREE}
    return json.loads(json.dumps({"model": model.to_dict(), "data": digest, **run}))


@contextmanager
def _asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM has come; a second SIGINT interrupts at once."""
    came = []

    def note(number: int, frame: Any) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


__all__ = ["LENGTHS", "Progress", "RunConfig", "build_accelerator", "train"]
