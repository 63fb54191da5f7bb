"""Finds a loss or a gradient that is not finite, without waiting for the device at each iteration."""

import torch
from torch import Tensor

from common.errors import UserError
from engine.distributed import all_gather

SMALLEST_SCALE = 1.0  # of the loss in float16; below it the scale no longer helps


class Diverged(UserError):
    """The loss, or its gradient, is not finite any more.

    Attributes:
        iteration: of the epoch, the first where it happened.
        here: whether it happened in this process.
    """

    def __init__(self, message: str, iteration: int, here: bool) -> None:
        super().__init__(message)
        self.iteration, self.here = iteration, here


class DivergenceWatch:
    """Records on the device the first iteration whose loss or gradient is not finite."""

    def __init__(self, device: torch.device) -> None:
        self._first = torch.full((), -1, device=device)

    def see(self, iteration: int, value: Tensor) -> None:
        self._first = torch.where((self._first < 0) & ~value.isfinite(), iteration, self._first)

    def check(self, learning_rate: float) -> None:
        """Waits for the device. All processes must call it.

        Args:
            learning_rate: for the message.

        Raises:
            Diverged: in all processes, if one of them has seen such a value.
        """
        mine = int(self._first)
        found = [first for first in all_gather(mine) if first >= 0]
        if found:
            raise Diverged(
                f"the loss or its gradient is not finite in iteration {min(found)} (learning rate "
                f"{learning_rate:.2e}): lower optimization.base_learning_rate or warm up for longer",
                min(found),
                mine == min(found),
            )


def check_loss_scale(scaler: torch.amp.GradScaler, iteration: int) -> None:
    """Raises Diverged, in all processes, if float16 gradients are not finite at any scale."""
    # The scale begins at 65536 and is halved at each skipped step, and for no other reason.
    if scaler.is_enabled() and scaler.get_scale() < SMALLEST_SCALE:
        raise Diverged(
            f"the gradient was not finite at too many steps up to iteration {iteration}, and none was taken: lower "
            "optimization.base_learning_rate or warm up for longer, or use execution.amp bf16 or none",
            iteration,
            False,
        )
