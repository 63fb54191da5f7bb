"""What a run leaves behind in output_dir: log, metrics, TensorBoard events, configuration, checkpoints."""

import json
import logging
from dataclasses import asdict
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
        logging.basicConfig(level=logging.WARNING, format="%(message)s")
        log.setLevel(logging.INFO if self.writes else logging.WARNING)
        if not self.writes:
            return
        try:
            (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
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

    def checkpoint(self, epoch: int, contents: dict[str, Any]) -> None:
        """checkpoints/last.pth, and epoch_N.pth when it is due."""
        if not self.writes:
            return
        last = self.folder / "checkpoints/last.pth"
        save_checkpoint(last, contents)
        if epoch % self.config.logging.save_epoch_freq == 0 or epoch == self.config.optimization.epochs:
            copy_checkpoint(last, last.with_name(f"epoch_{epoch}.pth"))
