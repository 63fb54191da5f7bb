"""What a run leaves behind in output_dir: log, metrics, TensorBoard events, configuration, checkpoints."""

import importlib
import json
import logging
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_write, write_text
from engine.checkpoint import LAST, PREVIOUS, copy_checkpoint, save_checkpoint
from engine.config import dump_config
from engine.distributed import Process
from engine.meters import Progress
from engine.metrics import Metrics
from engine.run_dir import CHECKPOINTS, FIGURES, not_writable
from engine.schema import Config

log = logging.getLogger("sifa")


class RunLogger:
    """Writes the files of output_dir, on rank 0; on the other ranks every method does nothing.

    On a terminal a bar shows the progress of an epoch or a validation, elsewhere lines of the log do. Leaving a
    `with` block closes the files.

    Args:
        config: of the run; written to config.yml if the run trains.
        process: this process.
        trains: False for a validation alone, which leaves the config.yml of the training as it is.

    Attributes:
        folder: output_dir.
        checkpoints: the folder of its checkpoints.
        events: of TensorBoard, by epoch; on rank 0 alone.

    Raises:
        UserError: output_dir cannot be written, or Weights & Biases is asked for and not installed.
    """

    def __init__(self, config: Config, process: Process, *, trains: bool) -> None:
        self.config, self.folder, self.writes = config, Path(config.output_dir), process.is_main
        self.checkpoints = self.folder / CHECKPOINTS
        self._bar: tqdm | None = None
        self._wandb: Any = None
        # The logger belongs to the process: handlers of an earlier run in the same process are replaced.
        log.setLevel(logging.INFO if self.writes else logging.WARNING)
        log.propagate = False
        for handler in log.handlers:
            handler.close()
        log.handlers = [_Console()]
        if not self.writes:
            return
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if trains:
                write_text(self.folder / "config.yml", dump_config(config))
            to_file = logging.FileHandler(self.folder / "log.txt", encoding="utf-8")
            # Two axes, two runs of TensorBoard: a resume removes the later points of each.
            self.events = SummaryWriter(str(self.folder / "tensorboard"))
            self._step_events = SummaryWriter(str(self.folder / "tensorboard/steps"))
        except OSError as error:
            raise UserError(not_writable(self.folder, error)) from None
        to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(to_file)
        if trains and config.logging.wandb:
            self._wandb = _start_wandb(config)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Brings what is still buffered to the disk, and to Weights & Biases."""
        if self.writes:
            self.events.close()
            self._step_events.close()
        if self._wandb is not None:
            self._wandb.finish()

    @contextmanager
    def bar(self, title: str, total: int, done: int = 0) -> Iterator[None]:
        """A bar on the terminal, if there is one; `advance` moves it, and lines of the log appear above it."""
        if self.writes and sys.stdout.isatty():
            self._bar = tqdm(desc=title, total=total, initial=done, file=sys.stdout, leave=False, dynamic_ncols=True)
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.close()
            self._bar = None

    def advance(self, count: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def progress(self, epoch: int, iteration: int, progress: Progress) -> None:
        """Writes a line of the log about the last iterations, and their figures to TensorBoard.

        Args:
            epoch: the present one, counted from 1.
            iteration: counted from the start of the training.
            progress: of these iterations.
        """
        log.info(f"epoch {epoch}/{self.config.optimization.epochs}  {progress}")
        values = {name: value for name, value in asdict(progress).items() if name not in ("iteration", "of")}
        self._scalars("step", values, iteration)

    def metrics(self, epoch: int, split: str, metrics: Metrics, **more: float) -> None:
        """Writes a line of metrics.jsonl, and the same figures to TensorBoard."""
        if not self.writes:
            return
        values = {**asdict(metrics), **more}
        with open(self.folder / FIGURES, "a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "split": split, **values}) + "\n")
        self._scalars(split, {name: value for name, value in values.items() if name != "videos"}, epoch)
        self.events.flush()

    def _scalars(self, group: str, values: dict[str, float], at: int) -> None:
        if not self.writes:
            return
        events = self._step_events if group == "step" else self.events
        for name, value in values.items():
            events.add_scalar(f"{group}/{name}", value, at)
        if self._wandb is not None:
            axis = "iteration" if group == "step" else "epoch"
            self._wandb.log({axis: at, **{f"{group}/{name}": value for name, value in values.items()}})

    def rewind(self, epoch: int, iteration: int) -> bool:
        """Removes later figures, which a killed run had written without saving the weights.

        Args:
            epoch: the last one that is complete.
            iteration: the last one that is complete, counted from the start of the training.

        Returns:
            Whether the validation of this epoch is among the figures that are left.
        """
        if self.writes and iteration:
            _purge(self.events, epoch + 1)
            _purge(self._step_events, iteration + 1)
        file = self.folder / FIGURES
        if not file.exists():
            return False
        kept, validated = [], False
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
                of, split = values["epoch"], values["split"]
            except (ValueError, KeyError, TypeError):
                continue  # incomplete: the run was killed while it wrote this line
            if split not in ("train", "val") or of <= epoch:
                kept.append(line)
            validated |= (of, split) == (epoch, "val")
        if self.writes:
            with atomic_write(file) as rewritten:
                rewritten.write("".join(f"{line}\n" for line in kept).encode())
        return validated

    def checkpoint(self, contents: dict[str, Any], *, epoch: int | None = None) -> None:
        """Writes checkpoints/last.pth, keeps the previous one, and adds epoch_N.pth if it is due after an epoch.

        Args:
            contents: the entries.
            epoch: that is complete, if one is.
        """
        if not self.writes:
            return
        last = self.checkpoints / LAST
        save_checkpoint(last, contents, keep=last.with_name(PREVIOUS))
        if epoch and (epoch % self.config.logging.save_epoch_freq == 0 or epoch == self.config.optimization.epochs):
            copy_checkpoint(last, last.with_name(f"epoch_{epoch}.pth"))


def _purge(events: SummaryWriter, step: int) -> None:
    """Tells TensorBoard to ignore earlier events from this step on, as SummaryWriter's purge_step does."""
    writer = events._get_file_writer()
    writer.add_event(Event(step=step, file_version="brain.Event:2"))
    writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))


class _Console(logging.Handler):
    """The log on the console, above a bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


def _start_wandb(config: Config) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError:
        raise UserError("logging.wandb needs Weights & Biases: pip install wandb") from None
    # The name of the run there, so that a resumed training continues the same run.
    name = Path(config.output_dir) / "wandb_id"
    if not name.exists():
        name.write_text(uuid.uuid4().hex, encoding="utf-8")
    run = wandb.init(
        project=config.logging.wandb,
        dir=config.output_dir,
        config=config.model_dump(),
        id=name.read_text(encoding="utf-8"),
        resume="allow",
    )
    for figures, axis in (("step/*", "iteration"), ("train/*", "epoch"), ("val/*", "epoch")):
        run.define_metric(figures, step_metric=axis)
    return run


class EpochClock:
    """Speed of an epoch, and the time that the remaining epochs will take with their validations.

    Args:
        done: epochs that were trained before this run, with fractions.
        epochs: of the whole training.
    """

    def __init__(self, done: float, epochs: int) -> None:
        self.done, self.epochs = done, epochs
        self.began = self.epoch_began = time.monotonic()

    def start(self) -> None:
        self.epoch_began = time.monotonic()

    def stop(self, done: int, clips: int) -> tuple[float, timedelta]:
        """Clips per second of the last epoch, which had this many clips, and the time left after `done` epochs."""
        now = time.monotonic()
        left = (now - self.began) / (done - self.done) * (self.epochs - done)
        return clips / (now - self.epoch_began), timedelta(seconds=round(left))
