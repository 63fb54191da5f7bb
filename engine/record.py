"""What a run leaves behind in output_dir: log, metrics, TensorBoard events, configuration, checkpoints."""

import json
import logging
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from engine.checkpoint import copy_checkpoint, save_checkpoint
from engine.config import dump_config
from engine.distributed import Process
from engine.errors import UserError
from engine.metrics import Metrics
from engine.schema import Config

log = logging.getLogger("sifa")

SECONDS_BETWEEN_LINES = 30


class Record:
    """The files of output_dir. Rank 0 writes them; on the others every method does nothing.

    Args:
        config: of the run; written to config.yml if the run trains.
        process: this process.
        trains: False for a validation alone, which leaves the training's config.yml as it is.

    Raises:
        UserError: output_dir cannot be written.
    """

    def __init__(self, config: Config, process: Process, *, trains: bool) -> None:
        self.config, self.folder, self.writes = config, Path(config.output_dir), process.is_main
        self.checkpoints = self.folder / "checkpoints"
        self._views_shown = time.monotonic()
        # The console of rank 0 and its file; the logger is the process's, so an earlier record's are replaced.
        log.setLevel(logging.INFO if self.writes else logging.WARNING)
        log.propagate = False
        log.handlers = [logging.StreamHandler(sys.stdout)]
        if not self.writes:
            return
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if trains:
                (self.folder / "config.yml").write_text(dump_config(config), encoding="utf-8")
            to_file = logging.FileHandler(self.folder / "log.txt", encoding="utf-8")
            self.events = SummaryWriter(str(self.folder / "tensorboard"))
        except OSError as error:
            raise UserError(f"output_dir {self.folder} is not a folder to write in: {error}") from None
        to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(to_file)

    def metrics(self, epoch: int, split: str, metrics: Metrics, **more: float) -> None:
        """A line of metrics.jsonl, and the same to TensorBoard."""
        if not self.writes:
            return
        values = {**asdict(metrics), **more}
        with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "split": split, **values}) + "\n")
        for name, value in values.items():
            if name != "videos":
                self.events.add_scalar(f"{split}/{name}", value, epoch)
        self.events.flush()

    def views_done(self, done: int, of: int) -> None:
        """A line of the log about a long validation, now and then."""
        if time.monotonic() - self._views_shown > SECONDS_BETWEEN_LINES:
            self._views_shown = time.monotonic()
            log.info(f"validation  {done}/{of} views")

    def checkpoint(self, epoch: int, contents: dict[str, Any]) -> None:
        """checkpoints/last.pth, and epoch_N.pth when it is due."""
        if not self.writes:
            return
        last = self.checkpoints / "last.pth"
        save_checkpoint(last, contents)
        if epoch % self.config.logging.save_epoch_freq == 0 or epoch == self.config.optimization.epochs:
            copy_checkpoint(last, last.with_name(f"epoch_{epoch}.pth"))


class EpochClock:
    """Speed of an epoch, and the time that the epochs to come will take with their validations."""

    def __init__(self, done: int, epochs: int) -> None:
        self.first, self.epochs = done, epochs
        self.began = self.epoch_began = time.monotonic()

    def start(self) -> None:
        self.epoch_began = time.monotonic()

    def stop(self, done: int, clips: int) -> tuple[float, timedelta]:
        """(clips a second, time left) after `done` epochs, the last of which had so many clips."""
        now = time.monotonic()
        left = (now - self.began) / (done - self.first) * (self.epochs - done)
        return clips / (now - self.epoch_began), timedelta(seconds=round(left))
