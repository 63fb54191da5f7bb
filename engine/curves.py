"""Curves of a run, for TensorBoard and Weights & Biases. If they cannot be written, the run goes on without."""

import importlib
import logging
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter

from common.errors import UserError, describe
from engine.schema import Config

log = logging.getLogger("sifa")


class Curves:
    """The curves of a run, on rank 0.

    After the first that cannot be written, a warning is logged and the others of its kind are left out: what follows
    incomplete data in a file of TensorBoard could not be read.

    Args:
        folder: output_dir.
        config: of the run.
        trains: whether Weights & Biases gets the curves too, if the configuration asks for it.

    Attributes:
        events: of TensorBoard, by epoch.

    Raises:
        OSError: the folder cannot be written.
        UserError: Weights & Biases is asked for and not installed.
    """

    def __init__(self, folder: Path, config: Config, *, trains: bool) -> None:
        _silence_event_threads()
        # Two axes, two runs of TensorBoard: a resume removes the later points of each.
        self.events = SummaryWriter(str(folder / "tensorboard"))
        self._step_events = SummaryWriter(str(folder / "tensorboard/steps"))
        self._failed: set[str] = set()
        self._wandb: Any = _start_wandb(config) if trains and config.logging.wandb else None

    def add(self, group: str, values: dict[str, float], at: int) -> None:
        """Adds a point to each curve of a group.

        Args:
            group: "step", with iterations as its axis, or another one, with epochs.
            values: by the name of the curve.
            at: iteration or epoch.
        """
        events = self._step_events if group == "step" else self.events

        def write_events() -> None:
            for name, value in values.items():
                events.add_scalar(f"{group}/{name}", value, at)
            if group != "step":
                events.flush()

        self._attempt("TensorBoard", write_events)
        if self._wandb is not None:
            axis = "iteration" if group == "step" else "epoch"
            point = {axis: at, **{f"{group}/{name}": value for name, value in values.items()}}
            self._attempt("Weights & Biases", lambda: self._wandb.log(point))

    def rewind(self, epoch: int, iteration: int) -> None:
        """Tells TensorBoard to ignore the points after the last complete epoch and iteration."""
        self._attempt("TensorBoard", lambda: _purge(self.events, epoch + 1))
        self._attempt("TensorBoard", lambda: _purge(self._step_events, iteration + 1))

    def close(self) -> None:
        """Brings what is still buffered to the disk, and to Weights & Biases."""
        self._attempt("TensorBoard", self.events.close)
        self._attempt("TensorBoard", self._step_events.close)
        if self._wandb is not None:
            self._attempt("Weights & Biases", self._wandb.finish)

    def _attempt(self, receiver: str, write: Callable[[], object]) -> None:
        if receiver in self._failed:
            return
        try:
            write()
        except Exception as error:
            self._failed.add(receiver)
            reason = f"{type(error).__name__}: {describe(error)}"
            log.warning(f"{receiver} gets no more of this run, which goes on without it: {reason}")


def _purge(events: SummaryWriter, step: int) -> None:
    """Tells TensorBoard to ignore earlier events from this step on, as SummaryWriter's purge_step does."""
    writer = events._get_file_writer()
    writer.add_event(Event(step=step, file_version="brain.Event:2"))
    writer.add_event(Event(step=step, session_log=SessionLog(status=SessionLog.START)))


def _silence_event_threads() -> None:
    """TensorBoard writes in threads. The error of one is raised again where the next point is added, and logged."""
    if threading.excepthook is not _report_thread:
        _report_thread.others = threading.excepthook  # type: ignore[attr-defined]
        threading.excepthook = _report_thread


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    if not type(failed.thread).__module__.startswith("tensorboard."):
        _report_thread.others(failed)  # type: ignore[attr-defined]


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
