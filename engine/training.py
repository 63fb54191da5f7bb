"""The state of a training: what goes on where a run was stopped."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from engine.averaging import WeightAverage
from engine.checkpoint import CheckpointError, entry, load_weights, random_state, set_random_state
from engine.distributed import Process, gather, is_sharded
from engine.metrics import TOP


@dataclass
class Training:
    """Network, optimiser, learning rate, and how far they have come.

    Attributes:
        model: the bare network, on the device.
        scaler: of the gradients; does nothing unless amp is fp16.
        average: of the weights over time, or None.
        iterations_per_epoch: batches of each process.
        epoch: epochs that are done.
        iteration: iterations of the epoch under way that are done, a multiple of iter_size wherever it is saved.
        sums: of the epoch under way in this process: clips, loss, hits for each k of TOP; on the device, so that adding
            to them does not wait for it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    iterations_per_epoch: int
    device: torch.device
    epoch: int = 0
    iteration: int = 0
    sums: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.start_epoch()

    def start_epoch(self) -> None:
        self.iteration = 0
        self.sums = torch.zeros(2 + len(TOP), dtype=torch.float64, device=self.device)

    def averaged(self) -> AbstractContextManager[None]:
        """The network has the mean of its weights over time inside of this, where one is kept."""
        return self.average.in_place() if self.average is not None else nullcontext()

    @property
    def iterations(self) -> int:
        """Done since the beginning of the training."""
        return self.epoch * self.iterations_per_epoch + self.iteration

    def contents(self) -> dict[str, Any]:
        """The entries of a checkpoint. All processes must call it; each has a part that is its own."""
        contents = {
            "model": _weights(self.model),
            "optimizer": self._optimizer_state(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iterations_per_epoch": self.iterations_per_epoch,
            "epoch": self.epoch,
            "iteration": self.iteration,
            "processes": gather(self._own_state()),
        }
        if self.average is not None:
            contents["average_steps"] = self.average.steps
            with self.average.in_place():
                contents["ema"] = {name: value.clone() for name, value in _weights(self.model).items()}
        return contents

    def _own_state(self) -> dict[str, Any]:
        """What differs between processes: random numbers, the epoch's sums, and BatchNorm's statistics within it."""
        own: dict[str, Any] = {"random": random_state(), "sums": self.sums.cpu(), "buffers": self._buffers()}
        if self.average is not None:
            with self.average.in_place():
                own["average_buffers"] = self._buffers()
        return own

    def _buffers(self) -> dict[str, Tensor]:
        if self.iteration == 0:
            return {}  # the epoch's end has made them the same everywhere
        return {name: buffer.detach().to("cpu", copy=True) for name, buffer in self.model.named_buffers()}

    def resume(self, path: Path, saved: dict[str, Any], process: Process) -> None:
        """Takes over everything from a checkpoint that was read, this process's own part included.

        Raises:
            CheckpointError: it is of another network, other processes, or of epochs of another length.
        """
        iterations = entry(saved, "iterations_per_epoch", path)
        if iterations != self.iterations_per_epoch:
            raise CheckpointError(
                f"checkpoint {path} is of a run with {iterations} iterations an epoch, this one has "
                f"{self.iterations_per_epoch}: resume with the same list, batch_size, iter_size and number of processes"
            )
        states = entry(saved, "processes", path)
        if len(states) != process.world:
            raise CheckpointError(f"checkpoint {path} is of {len(states)} processes, this run has {process.world}")
        if (self.average is None) != ("ema" not in saved):
            raise CheckpointError(
                f"checkpoint {path} has {'no' if self.average else 'an'} average of the weights: resume with the same "
                "optimization.ema_decay"
            )
        own = states[process.rank]
        if self.average is not None:
            with self.average.in_place():
                self._load_network(path, saved["ema"], own["average_buffers"])
            self.average.steps = saved["average_steps"]
        self._load_network(path, entry(saved, "model", path), own["buffers"])
        try:
            self._load_optimizer(entry(saved, "optimizer", path))
            self.scheduler.load_state_dict(entry(saved, "scheduler", path))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"checkpoint {path} does not fit this optimiser: {error}") from None
        if self.scaler.is_enabled() and saved["scaler"]:
            self.scaler.load_state_dict(saved["scaler"])
        self.epoch, self.iteration = entry(saved, "epoch", path), entry(saved, "iteration", path)
        self.sums = own["sums"].to(self.device)
        set_random_state(own["random"])

    def _load_network(self, path: Path, weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        if is_sharded(self.model):
            set_model_state_dict(self.model, {**weights, **buffers}, options=_WHOLE)
        else:
            load_weights(self.model, {**weights, **buffers}, path)

    # A sharded optimiser's state is saved by the parameters' names, put together on rank 0.

    def _optimizer_state(self) -> dict[str, Any]:
        if is_sharded(self.model):
            return get_optimizer_state_dict(self.model, self.optimizer, options=_WHOLE)
        return self.optimizer.state_dict()

    def _load_optimizer(self, state: dict[str, Any]) -> None:
        if is_sharded(self.model):
            set_optimizer_state_dict(self.model, self.optimizer, state, options=_WHOLE)
        else:
            self.optimizer.load_state_dict(state)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """All of them, on rank 0 where the network is sharded."""
    if is_sharded(model):
        return dict(get_model_state_dict(model, options=_WHOLE))  # type: ignore[arg-type]
    return model.state_dict()
