"""Exponential moving average of the weights over the steps of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_WARM_UP = 10  # steps in which the mean follows the weights faster than `decay` says


class EMA:
    """Exponential moving average of the parameters of a network and of its BatchNorm statistics.

    Args:
        model: the network. Its values must stay the same tensors.
        decay: weight of the previous mean; in the first steps (1 + n) / (10 + n) where that is less.

    Attributes:
        steps: updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._values = _floats(model)
        self._means = {name: value.detach().clone() for name, value in self._values.items()}
        self._parameters = [name for name, value in self._values.items() if isinstance(value, nn.Parameter)]
        self._statistics = [name for name in self._values if name not in set(self._parameters)]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the values of the network into the mean, after a step of the optimizer."""
        decay = min(self.decay, (1 + self.steps) / (_WARM_UP + self.steps))
        self.steps += 1
        for names in (self._parameters, self._statistics):  # apart: a sharded network shards only the parameters
            means, values = [self._means[name] for name in names], [self._values[name] for name in names]
            if names:
                torch._foreach_lerp_(means, values, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the network has the means as its values; changes of them change the means."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._values.items():
            mean = self._means[name]
            kept = value.clone()
            value.copy_(mean)
            mean.copy_(kept)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    """Everything in the state of the network that has a mean: all but the counters."""
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if value.is_floating_point()}
