"""Training of a model on text, over one process or many, by Accelerate.

The global batch is cut into micro-batches in one fixed order, whatever the number of processes and of accumulation
steps, so that these change the losses by rounding only. On one machine a run is a function of its settings, killed and
resumed or not: what a step reads depends on the step alone, and a checkpoint has everything else.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.functional import cross_entropy

from ..checkpoints import training as checkpoints
from ..data.tokenizer import Tokenizer
from ..evaluation.text import bits_per_byte, spans
from ..model import LanguageModel, ModelConfig, State, map_state, state_tensors
from ..ops.memory_attention.state import has_slots, with_empty_slots
from ..ops.precision import has_bfloat16
from . import log
from .config import FREE, RunConfig
from .history import Diverged, Interrupted, TextHistory, asked_to_stop
from .identity import identity
from .lookup import LookupRows, lookup_layers, neighbours
from .optimizer import build_optimizer
from .rows import Data, Rows

LENGTHS = (1, 4, 32)
"""Lengths at which the finished model is scored, in training lengths, as far as held-out documents reach."""


def build_accelerator(config: RunConfig, logs: Path, cpu: bool = False) -> Accelerator:
    """For this process, or those that torchrun or `accelerate launch` began. `cpu`: even where there is an accelerator."""
    cpu = cpu or not torch.accelerator.is_available()
    device = torch.device("cpu") if cpu else torch.accelerator.current_accelerator()
    assert device is not None
    precision = config.precision or ("bf16" if has_bfloat16(device) else "no")
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with="tensorboard", project_dir=logs)


def spread(
    accelerator: Accelerator, model: LanguageModel, config: RunConfig
) -> tuple[LanguageModel, AcceleratedOptimizer, Callable[[bool], AbstractContextManager]]:
    """The model, to be called as before, and its optimizer, over all processes; and a context for each micro-batch.

    The context is of a function of whether this is the last micro-batch of a step: then gradients are exchanged.

    With `fsdp` PyTorch's `fully_shard` shards each block by itself, on any device; Accelerate's own FSDP2, for accelerators
    only, is there for runs of `accelerate launch`.
    """
    if not config.fsdp:
        copied, optimizer = accelerator.prepare(model, build_optimizer(model, config))
        return copied, optimizer, lambda last: nullcontext() if last else accelerator.no_sync(copied)
    if not torch.distributed.is_initialized():
        raise ValueError("--fsdp: expected several processes, got one; begin them with torchrun or accelerate launch")
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    model = model.to(accelerator.device)
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh, reshard_after_forward=True)  # an evaluation has no backward pass to do it

    def exchange(last: bool) -> AbstractContextManager:
        assert isinstance(model, FSDPModule)
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
    report: Callable[[TextHistory], None] = lambda history: None,
    source: str | None = None,
) -> tuple[LanguageModel | None, TextHistory]:
    """Train `model`; returns it, gathered on the CPU of the main process (None elsewhere), and the history of the run.

    `path` is its checkpoint, read with `resume` where there is one; `source` is the digest of the weights that the run
    begins with, None for new ones. `report` is called after each step, and once before the first. SIGINT and SIGTERM end
    the step, save, and raise Interrupted. A loss that is not finite raises Diverged and leaves the checkpoint before it:
    none is written of weights whose loss is not finite. ValueError for settings that cannot be, for a checkpoint of
    another run and for a damaged one; OSError when the disk is full.
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
    text = Rows(data.train, config.length, config.batch_size, config.seed, config.carry)
    rows: Rows | LookupRows = text
    if config.lookup:
        if config.batch_size // parts < 2:
            raise ValueError(
                "--lookup: expected two rows or more in a micro-batch, got one; rows find those beside them"
            )
        assert tokenizer.end is not None
        rows = LookupRows(text, config.lookup, config.steps, tokenizer.vocab_size, tokenizer.end)
        layers = lookup_layers(model)
    share = config.batch_size // parts
    mine = [slice((m * world + rank) * share, (m * world + rank + 1) * share) for m in range(config.accumulate)]
    settings = {name: value for name, value in asdict(config).items() if name not in FREE}
    read = {"data": data.digest} | ({"lanes": text.lanes} if config.carry else {})
    run = identity(model.config, read, settings) | ({} if source is None else {"from": source})

    spread_model, optimizer, exchange = spread(accelerator, model, config)
    bare = accelerator.unwrap_model(spread_model)
    history, states = TextHistory(), [_nothing_read(config) for _ in range(text.lanes)]
    if resume and path.exists():
        tensors, content = checkpoints.load(path, run)
        rest = checkpoints.restore(path, bare, optimizer.optimizer, tensors, model.config.tie_embeddings)
        try:
            history = TextHistory(losses=rest.pop("losses").tolist(), **content["progress"])
            for lane in range(min(text.lanes, history.step) if config.carry else 0):
                states[lane] = [_carried(bare, rest, lane, part, accelerator.device) for part in mine]
        except (KeyError, TypeError) as error:
            raise checkpoints.broken(path, error) from None
    log.begin(accelerator, history.step)
    report(history)
    every, save_every = config.often("eval_every", 10), config.often("save_every", 20)
    held_out = _held_out(data, config.length, config.eval_tokens)
    losses: list[Tensor] = []
    since = time.monotonic()

    def save() -> None:
        rest = _gathered(accelerator, states) if config.carry else {}
        rest["losses"] = torch.tensor(history.losses)
        tensors = checkpoints.collect(bare, optimizer.optimizer, rest)
        plain = {name: value for name, value in asdict(history).items() if name != "losses"}
        if accelerator.is_main_process:
            log.flush(accelerator)
            checkpoints.save(path, tensors, {"identity": run, "progress": plain})
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
        """Judge the losses since the last call; log their mean."""
        nonlocal since
        if not losses:
            return
        mean = judge(torch.stack(losses), history.step - len(losses) + 1)
        losses.clear()
        now = time.monotonic()
        seconds, since = now - since, now
        history.seconds += seconds
        history.losses += mean.tolist()
        speed = len(mean) * config.batch_size * config.length / max(seconds, 1e-9)
        rate = config.rate(history.step - 1)
        accelerator.log(
            {"loss": mean.mean().item(), "learning_rate": rate, "tokens_per_second": speed}, step=history.step
        )

    with asked_to_stop() as asked:
        while history.step < config.steps:
            step = history.step
            lane = text.lane(step)
            if text.begins(step):
                states[lane] = _nothing_read(config)
            for group in optimizer.param_groups:
                group["lr"] = config.rate(step)
            spread_model.train()
            total = torch.zeros((), device=accelerator.device)
            for m, part in enumerate(mine):
                batch = rows.batch(step, part)
                stores = neighbours(layers, batch, accelerator.device) if config.lookup else None
                tokens, targets, segments = (
                    torch.from_numpy(x).to(accelerator.device) for x in (batch.tokens, batch.targets, batch.segments)
                )
                dropped = config.dropped(step, len(tokens), part)  # more rows than `part` while look-ups are warmed up
                if dropped is not None:
                    dropped = dropped.to(accelerator.device)
                before = states[lane][m]
                with exchange(m == config.accumulate - 1), accelerator.autocast():
                    logits, state = spread_model(tokens, before, segments=segments, stores=stores, dropped=dropped)
                    loss = cross_entropy(logits.flatten(0, 1).float(), targets.flatten()) / config.accumulate
                    accelerator.backward(loss)
                total = total + loss.detach()
                if config.carry:
                    states[lane][m] = _to_carry(state)
            accelerator.clip_grad_norm_(spread_model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(total)
            history.step += 1
            done = history.step == config.steps
            if done or history.step % config.log_every == 0:
                settle()
            if held_out is not None and (done or history.step % every == 0):
                settle()
                bits = bits_per_byte(spread_model, tokenizer, held_out, held_out.shape[1] - 1)
                history.evaluations.append((history.step, bits.mean))
                accelerator.log({"held_out_bits_per_byte": bits.mean}, step=history.step)
                since = time.monotonic()
            stop = asked() if world == 1 else False
            if world > 1 and history.step % config.log_every == 0:
                stop = bool(accelerator.reduce(torch.tensor(float(asked()), device=accelerator.device)).item())
            if done or stop or history.step % save_every == 0:
                settle()
                with torch.no_grad(), accelerator.autocast():
                    again, _ = spread_model(tokens, before, segments=segments, stores=stores, dropped=dropped)
                judge(cross_entropy(again.flatten(0, 1).float(), targets.flatten())[None], history.step + 1)
                save()
            report(history)
            if stop and not done:
                raise Interrupted(f"stopped at step {history.step} of {config.steps}; --resume goes on from there")
    if not history.scores:
        history.scores = _scores(spread_model, tokenizer, data, config)
        save()
    return _gathered_model(bare, model.config, accelerator.is_main_process), history


def _nothing_read(config: RunConfig) -> list[State | None]:
    """The states of the micro-batches before a first step."""
    return [None] * config.accumulate


def _held_out(data: Data, length: int, most: int) -> Any:
    """Tokens for `bits_per_byte` at `length`, or at the longest possible below it; None where nothing is held out."""
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


def _gathered(accelerator: Accelerator, states: list[list[State | None]]) -> dict[str, Tensor]:
    """The carried states of all rows of each lane that has begun, in the order of the global batch."""
    gathered = {}
    for lane, of_lane in enumerate(states):
        begun = [state for state in of_lane if state is not None]
        parts = [[accelerator.gather(x) for _, x in state_tensors(state)] for state in begun]
        for (name, _), *leaves in zip(state_tensors(begun[0]) if begun else (), *parts):
            gathered[f"{lane}.{name}"] = torch.cat(leaves).cpu()
    return gathered


def _to_carry(state: State) -> State:
    """The state for the next row: no gradient, and empty slots, whose keys would be of weights of many steps ago."""
    state = map_state(torch.Tensor.detach, state)
    for layer in state["layers"]:
        if has_slots(layer.get("attention", {})):
            layer["attention"] = with_empty_slots(layer["attention"])
    return state


def _carried(model: LanguageModel, rest: dict[str, Tensor], lane: int, part: slice, device: torch.device) -> Any:
    """The rows `part` of the states of `_gathered`."""
    template = model.init_state(1, 0, "meta")
    leaves = iter([rest[f"{lane}.{name}"][part].to(device) for name, _ in state_tensors(template)])
    return map_state(lambda _: next(leaves), template)


def _gathered_model(model: Any, config: ModelConfig, is_main: bool) -> LanguageModel | None:
    tensors = checkpoints.weights(model)
    if not is_main:
        return None
    gathered = LanguageModel(config)
    gathered.load_state_dict(tensors)
    return gathered.eval()


__all__ = ["LENGTHS", "build_accelerator", "spread", "train"]
