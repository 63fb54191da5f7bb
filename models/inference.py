"""A network for inference alone: BatchNorm as part of the convolutions, another dtype, compiled."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck

from models.network import Network, mean_softmax
from models.sifa_resnet import SIFANet

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Form:
    """What computes the predictions of a network.

    Args:
        name: for instance `onnx`, or `eager bfloat16`.
        run: maps normalised clips (N, 3, T, S, S), float32, to the mean of the heads' softmaxes, (N, classes), float32.
        report: a line on how the form was chosen; empty if the user chose it.
    """

    name: str
    run: Run
    report: str = ""


class Probabilities(nn.Module):
    """A network and the mean of its heads' softmaxes.

    Shape:
        (N, 3, T, H, W) to (N, classes), float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, clip: Tensor) -> Tensor:
        return mean_softmax(self.network(clip))


def inference_network(network: Network, dtype: torch.dtype, *, fold: bool, compile: bool) -> nn.Module:
    """A network in eval mode in another form, which computes the same and shares or copies its weights.

    Args:
        network: in eval mode. It stays as it is.
        dtype: of the weights and of the clips.
        fold: see `fold_batch_norms`.
        compile: by torch.compile with frozen weights, for calls without gradients. The first call takes minutes.
    """
    form = network
    if fold and any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        form = fold_batch_norms(network)
    if dtype != next(form.parameters()).dtype:
        form = copy.deepcopy(form).to(dtype)
    return torch.compile(form, options={"freezing": True}) if compile else form  # type: ignore[return-value]


def fold_batch_norms(network: Network) -> Network:
    """A copy of a network that computes the same in eval mode, with fewer operators.

    A BatchNorm in eval mode multiplies each channel by a number and adds another one. So does a convolution with other
    weights and a bias. The weights are computed in float64 and rounded once; results differ by roundings.

    Args:
        network: in eval mode. It stays as it is. One without BatchNorm, such as SIFA-Transformer, is just copied.

    Raises:
        ValueError: the network is in training mode, where BatchNorm depends on the batch.
    """
    if any(module.training for module in network.modules()):
        raise ValueError("the network must be in eval mode: in training mode BatchNorm depends on the batch")
    dtype = next(network.parameters()).dtype
    folded = copy.deepcopy(network).requires_grad_(False)
    for parent, conv, norm in list(_pairs(folded)):
        fused = fuse_conv_bn_eval(getattr(parent, conv).double(), getattr(parent, norm).double())
        setattr(parent, conv, fused.to(dtype).requires_grad_(False))
        setattr(parent, norm, nn.Identity())
    return folded


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """(module, name of its convolution, name of the BatchNorm that directly follows it)."""
    for module in network.modules():
        names = [name for name, _ in module.named_children()]
        if isinstance(module, nn.Sequential):
            pairs = list(pairwise(names))
        elif isinstance(module, SIFANet | Bottleneck):
            pairs = [(f"conv{name[2:]}", name) for name in names if name.startswith("bn")]
        else:
            pairs = []
        for conv, norm in pairs:
            if isinstance(getattr(module, conv), nn.Conv2d) and isinstance(getattr(module, norm), nn.BatchNorm2d):
                yield module, conv, norm
