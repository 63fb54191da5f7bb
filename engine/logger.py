"""What a run leaves behind in output_dir: log, metrics, TensorBoard events, configuration, checkpoints."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common import cli
from common.errors import OneProcessError, UserError, describe, printable
from common.files import write_text
from engine.checkpoint import LAST, PREVIOUS, copy_checkpoint, save_checkpoint
from engine.config import dump_config
from engine.curves import Curves
from engine.distributed import Process
from engine.figures import add_figures, read_figures, replace_figures, validation_curve
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

    Raises:
        UserError: output_dir cannot be written, or Weights & Biases is asked for and not installed.
    """

    def __init__(self, config: Config, process: Process, *, trains: bool) -> None:
        self.config, self.folder, self.writes = config, Path(config.output_dir), process.is_main
        self.checkpoints = self.folder / CHECKPOINTS
        self._bar: tqdm | None = None
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
            to_file = _LogFile(self.folder / "log.txt", encoding="utf-8")
            self._curves = Curves(self.folder, config, trains=trains)
        except OSError as error:
            raise UserError(not_writable(self.folder, error)) from None
        to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(to_file)

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.writes:
            self._curves.close()

    @property
    def events(self) -> SummaryWriter:
        """Of TensorBoard, by epoch; on rank 0 alone."""
        return self._curves.events

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
        if self.writes:
            values = {name: value for name, value in asdict(progress).items() if name not in ("iteration", "of")}
            self._curves.add("step", values, iteration)

    def metrics(self, epoch: int, split: str, metrics: Metrics, **more: float) -> None:
        """Writes a line of metrics.jsonl and metrics.csv, and the same figures to TensorBoard."""
        if not self.writes:
            return
        values = {**asdict(metrics), **more}
        with self._writing():
            add_figures(self.folder, {"epoch": epoch, "split": split, **values})
        self._curves.add(split, {name: value for name, value in values.items() if name != "videos"}, epoch)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A failure inside is an error of the user: metrics.jsonl is needed, also to resume."""
        try:
            yield
        except OSError as error:
            raise OneProcessError(f"the figures of {self.folder} cannot be written: {describe(error)}") from None

    def validation_curve(self) -> str:
        """The validations so far as a line of text; empty on the other ranks, and where there is one validation."""
        return validation_curve(read_figures(self.folder)) if self.writes else ""

    def rewind(self, epoch: int, iteration: int) -> bool:
        """Removes later figures, which a killed run had written without saving the weights.

        Args:
            epoch: the last one that is complete.
            iteration: the last one that is complete, counted from the start of the training.

        Returns:
            Whether the validation of this epoch is among the figures that are left.
        """
        if self.writes and iteration:
            self._curves.rewind(epoch, iteration)
        rows = read_figures(self.folder)
        if self.writes and (self.folder / FIGURES).exists():
            with self._writing():
                rows = [row for row in rows if row["split"] not in ("train", "val") or row["epoch"] <= epoch]
                replace_figures(self.folder, rows)
        return any((row["epoch"], row["split"]) == (epoch, "val") for row in rows)

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


class _LogFile(logging.FileHandler):
    """log.txt. A line that cannot be written is on the console, with one warning."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # logging's name
        if not self.failed:
            self.failed = True  # first: the warning comes here, too
            error = sys.exc_info()[1]
            reason = describe(error) if isinstance(error, Exception) else "no reason is known"
            log.warning(f"{self.baseFilename} misses lines from here on: {reason}")


class _Console(logging.Handler):
    """The log on the console, above a bar where there is one. A console that is gone ends no run: log.txt goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(printable(self.format(record)), file=sys.stdout)
            sys.stdout.flush()
        except OSError:  # the reader of a pipe has ended, or the disk of a file is full
            cli.close_stdout()


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
