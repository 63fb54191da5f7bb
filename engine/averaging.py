"""Means that make better numbers: of the weights over time, and of BatchNorm's statistics over some batches."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor, nn

_WARM_UP = 10  # steps over which the mean still follows the weights, before it is given its full inertia


class WeightAverage:
    """Exponential moving average of a network's parameters and BatchNorm statistics, step by step.

    Args:
        model: whose values are averaged, in place, so that they stay the same tensors for good.
        decay: weight of what was before; in the first steps (1 + n) / (10 + n) where that is less.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._values = _floats(model)
        self._means = {name: value.detach().clone() for name, value in self._values.items()}
        self._parameters = [name for name, value in self._values.items() if isinstance(value, nn.Parameter)]
        self._statistics = [name for name in self._values if name not in set(self._parameters)]

    @torch.no_grad()
    def update(self) -> None:
        """Takes the network's values in, after a step of the optimiser."""
        decay = min(self.decay, (1 + self.steps) / (_WARM_UP + self.steps))
        self.steps += 1
        for names in (self._parameters, self._statistics):  # apart, since a sharded network shards only the former
            means, values = [self._means[name] for name in names], [self._values[name] for name in names]
            if names:
                torch._foreach_lerp_(means, values, 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the means for its values inside of this; what changes there changes the means."""
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
    """Everything in the network's state that has a mean: not the counters."""
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if value.is_floating_point()}


@torch.no_grad()
def precise_batch_norm(model: nn.Module, clips: Iterable[Tensor], batches: int) -> None:
    """Takes BatchNorm's statistics anew, as the plain mean over some batches of what it sees with the weights it has.

    Frozen ones keep theirs. Everything but BatchNorm is in eval mode meanwhile, so that no random number is drawn.

    Args:
        clips: batches of the network's input, of training clips.
        batches: how many of them are used.
    """
    model.eval()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.weight.requires_grad]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's word for the plain mean
    for batch in islice(clips, batches):
        model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
