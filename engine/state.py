"""The state of a training: everything that a resumed run must have to continue as if it had never stopped."""

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

from common.errors import one_line
from engine.checkpoint import CheckpointError, entry, load_weights, random_state, set_random_state
from engine.distributed import Process, all_gather
from engine.ema import EMA
from engine.metrics import TOP
from engine.optim import build_optimizer, build_scheduler
from engine.parallel import is_sharded
from engine.schema import Optimization


@dataclass
class TrainState:
    """Network, optimizer, learning rate, and how far they have come.

    Attributes:
        model: the bare network, on the device.
        scaler: of the gradients; does nothing unless execution.amp is fp16.
        ema: mean of the weights over the steps, or None.
        iterations_per_epoch: batches of each process.
        epoch: epochs that are complete.
        learning_rate: of the last iteration in this run, of the first group of parameters.
        iteration: complete iterations of the present epoch; a multiple of iter_size wherever the state is saved.
        sums: over the present epoch in this process: clips, loss, hits for each k of TOP; on the device, so that adding
            to them does not wait for it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    ema: EMA | None
    iterations_per_epoch: int
    device: torch.device
    epoch: int = 0
    iteration: int = 0
    learning_rate: float = 0.0
    sums: Tensor = field(init=False)

    @classmethod
    def new(
        cls, model: nn.Module, settings: Optimization, amp: str, iterations_per_epoch: int, device: torch.device
    ) -> "TrainState":
        """The state at the start of the first epoch.

        Args:
            model: the bare network, on the device; sharded already if it will be.
            settings: of the optimizer, its schedule and the mean of the weights.
            amp: execution.amp.
            iterations_per_epoch: batches of each process.
            device: where the network is.

        Raises:
            UserError: the settings name parameters that the network does not have.
        """
        optimizer = build_optimizer(model, settings)
        return cls(
            model=model,
            optimizer=optimizer,
            scheduler=build_scheduler(optimizer, settings, iterations_per_epoch),
            scaler=torch.amp.GradScaler(device.type, enabled=amp == "fp16"),
            ema=EMA(model, settings.ema_decay) if settings.ema_decay else None,
            iterations_per_epoch=iterations_per_epoch,
            device=device,
        )

    def __post_init__(self) -> None:
        self.start_epoch()

    def start_epoch(self) -> None:
        self.iteration = 0
        self.sums = torch.zeros(2 + len(TOP), dtype=torch.float64, device=self.device)

    def ema_applied(self) -> AbstractContextManager[None]:
        """Inside, the network has the mean of its weights over the steps, if the run keeps one."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    @property
    def iterations(self) -> int:
        """Complete since the start of the training."""
        return self.epoch * self.iterations_per_epoch + self.iteration

    def checkpoint_entries(self) -> dict[str, Any]:
        """The entries of a checkpoint. All processes must call it: each contributes a part."""
        contents = {
            "model": _weights(self.model),
            "optimizer": self._optimizer_state(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "iterations_per_epoch": self.iterations_per_epoch,
            "epoch": self.epoch,
            "iteration": self.iteration,
            "processes": all_gather(self._rank_state()),
        }
        if self.ema is not None:
            contents["average_steps"] = self.ema.steps
            with self.ema.applied():
                contents["ema"] = {name: value.clone() for name, value in _weights(self.model).items()}
        return contents

    def _rank_state(self) -> dict[str, Any]:
        """What differs between processes: random numbers, sums of the epoch, and BatchNorm's statistics within it."""
        own: dict[str, Any] = {"random": random_state(), "sums": self.sums.cpu(), "buffers": self._buffers()}
        if self.ema is not None:
            with self.ema.applied():
                own["average_buffers"] = self._buffers()
        return own

    def _buffers(self) -> dict[str, Tensor]:
        if self.iteration == 0:
            return {}  # the end of an epoch makes them equal on all processes
        return {name: buffer.detach().to("cpu", copy=True) for name, buffer in self.model.named_buffers()}

    def resume(self, path: Path, saved: dict[str, Any], process: Process) -> None:
        """Loads a checkpoint, with the part of this process.

        Args:
            path: of the checkpoint, for messages.
            saved: what was read from it.
            process: this process.

        Raises:
            CheckpointError: it belongs to another network, another number of processes, or epochs of another length.
        """
        self._check_fits(path, saved, process)
        configured = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        base_rates = self.scheduler.base_lrs
        own = saved["processes"][process.rank]
        try:
            if self.ema is not None:
                with self.ema.applied():
                    self._load_network(path, entry(saved, "ema", path), own["average_buffers"])
                self.ema.steps = entry(saved, "average_steps", path)
            self._load_network(path, entry(saved, "model", path), own["buffers"])
            self._load_optimizer(entry(saved, "optimizer", path))
            self.scheduler.load_state_dict(entry(saved, "scheduler", path))
            self._apply_settings(configured, base_rates)
            if self.scaler.is_enabled() and (scaler := entry(saved, "scaler", path)):
                self.scaler.load_state_dict(scaler)
            self.epoch, self.iteration = entry(saved, "epoch", path), entry(saved, "iteration", path)
            self.sums = self.sums.copy_(own["sums"])
            set_random_state(own["random"])
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"checkpoint {path} does not fit this training: {one_line(error)}") from None
        if self.scheduler.last_epoch != self.iterations:
            raise CheckpointError(
                f"checkpoint {path} is damaged: its schedule is at another iteration than its weights"
            )

    def _check_fits(self, path: Path, saved: dict[str, Any], process: Process) -> None:
        iterations = entry(saved, "iterations_per_epoch", path)
        if iterations != self.iterations_per_epoch:
            raise CheckpointError(
                f"checkpoint {path} is of a run with {iterations} iterations an epoch, this one has "
                f"{self.iterations_per_epoch}: resume with the same list, batch_size, iter_size and number of processes"
            )
        if entry(saved, "iteration", path) >= iterations:
            raise CheckpointError(f"checkpoint {path} is damaged: iteration {saved['iteration']} of {iterations}")
        states = entry(saved, "processes", path)
        if len(states) != process.world_size:
            raise CheckpointError(f"checkpoint {path} is of {len(states)} processes, this run has {process.world_size}")
        if (self.ema is None) != ("ema" not in saved):
            raise CheckpointError(
                f"checkpoint {path} has {'no' if self.ema else 'an'} average of the weights: resume with the same "
                "optimization.ema_decay"
            )

    def _apply_settings(self, configured: list[dict[str, Any]], base_rates: list[float | Tensor]) -> None:
        """Gives the optimizer the rates, momentum and decay of the present configuration, not those of the checkpoint.

        The learning rate is that of the present schedule at the iteration where the training resumes.
        """
        self.scheduler.base_lrs = base_rates
        for group, settings, rate in zip(self.optimizer.param_groups, configured, self._rates(), strict=True):
            group.update({**settings, "lr": rate})
        self.scheduler._last_lr = self._rates()

    def _rates(self) -> list[float | Tensor]:
        """The learning rate of each group at the present iteration, by the schedule."""
        scheduler = self.scheduler
        assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR)
        return [
            base * at(scheduler.last_epoch) for base, at in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]

    def _load_network(self, path: Path, weights: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        if is_sharded(self.model):
            set_model_state_dict(self.model, {**weights, **buffers}, options=_WHOLE)
        else:
            load_weights(self.model, {**weights, **buffers}, path)

    # The state of a sharded optimizer is saved under the names of the parameters, gathered on rank 0.

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
    """All weights; of a sharded network on rank 0 alone."""
    if is_sharded(model):
        return dict(get_model_state_dict(model, options=_WHOLE))  # type: ignore[arg-type]
    return model.state_dict()
