"""TensorBoard's log of a run, in which every step is once, however often the run was killed and resumed."""

from pathlib import Path

from accelerate import Accelerator

from .._utils.files import replacing

NAME = "logs"


def begin(accelerator: Accelerator, step: int) -> None:
    """Log the steps after `step`, from which the run goes on; entries of later steps are removed."""
    if accelerator.is_main_process:
        _cut(Path(accelerator.logging_dir) / NAME, step)
    accelerator.init_trackers(NAME)


def flush(accelerator: Accelerator) -> None:
    """Write the log to the disk, so that a checkpoint that is written next is not ahead of it."""
    for tracker in accelerator.trackers:
        tracker.tracker.flush()


def _cut(folder: Path, step: int) -> None:
    paths = [path for path in folder.glob("events.out.tfevents.*") if path.is_file()]
    if not paths:
        return
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    for path in paths:
        records = list(RawEventFileLoader(str(path)).Load())  # a last one that was cut off is left out
        kept = [record for record in records if Event.FromString(record).step <= step]
        if len(kept) < len(records):
            with replacing(path) as partial, partial.open("wb") as file:
                writer = RecordWriter(file)
                for record in kept:
                    writer.write(record)


__all__ = ["begin", "flush"]
