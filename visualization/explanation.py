"""What a network does with a clip: where SIFA samples and with which weights, what moves, what speaks for a class.

Numbers only. Positions are those of a stage's maps; a `Grid` says where in the clip they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from cuda_sifa import reference
from models import InterFrameAttention, Network
from models.sifa_swin import SIFASwin
from models.temporal import STAGES


@dataclass(frozen=True)
class Grid:
    """Where the positions of a map are in the clip, in pixels of the network's input: start + stride * position.

    That is the centre of what a position sees. SIFA-Net's convolutions and its pooling are centred on the pixels
    0, stride, 2 * stride, ...; a token of SIFA-Transformer is the patch itself.
    """

    stride: int
    start: float

    def pixels(self, positions: np.ndarray) -> np.ndarray:
        return self.start + self.stride * positions

    def nearest(self, pixel: float, positions: int) -> int:
        """Of a map's rows or columns, as many as `positions`, the one that is nearest to a pixel."""
        return min(max(round((pixel - self.start) / self.stride), 0), positions - 1)


@dataclass(frozen=True)
class Attention:
    """What one SIFA module did to a clip of T feature frames, at each position (y, x) of its maps.

    name: of the module in the network.
    points: (T-1, k*k, 2, H, W), y and x where frame t+1 is sampled for the query of frame t, in positions.
    offsets: (T-1, k*k, 2, H, W), how far the predicted offsets displaced them; zeros if the neighbourhood is regular.
    weights: (T-1, k*k, H, W), what multiplies the samples: <query, key> / C, the mean over heads. No softmax.
    saliency: (T-1, H, W), how much moves: |sigmoid(f[t+1] - f[t]) - 1/2| * 2, the mean over channels, in [0, 1].
    """

    name: str
    points: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    saliency: np.ndarray

    @classmethod
    def of(cls, name: str, module: InterFrameAttention, clip: Tensor) -> "Attention":
        """clip: (1, T, C, H, W), what the module was given, with T at least 2."""
        offset = module.predict_offset(clip)
        frames, height, width = clip.shape[1], *clip.shape[3:]
        k, reach = module.kernel_size, module.kernel_size // 2
        # The release's index, which the reference has: the queries of frame t-1 are found at t.
        before = None if offset is None else nn.functional.pad(offset, (0, 0) * 3 + (1, 0)).transpose(1, 2)
        weights = reference.correlation(clip.transpose(1, 2), before, k, module.dilation)[0, :, 1:].transpose(0, 1)
        taps = torch.stack(torch.meshgrid(torch.arange(k), torch.arange(k), indexing="ij")).flatten(1).T - reach
        places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
        regular = (taps * module.dilation)[:, :, None, None] + places  # (k*k, 2, H, W)
        offsets = (
            torch.zeros(frames - 1, *regular.shape)
            if offset is None
            else offset[0].unflatten(1, (k * k, 2)).cpu().float()
        )
        moved = (torch.sigmoid(clip[0, 1:] - clip[0, :-1]) - 0.5).abs().mean(1) * 2
        return cls(
            name,
            (regular + offsets).numpy(),
            offsets.numpy(),
            weights.cpu().float().numpy(),
            moved.cpu().float().numpy(),
        )


@dataclass(frozen=True)
class Explanation:
    """What a network did with a clip, in one stage.

    stage: res2..res5. grid: where its positions are.
    attentions: of its SIFA blocks, the first block first.
    label, probability: the class that `cam` is about.
    cam: (T, H, W), Grad-CAM of the stage's output, in [0, 1] over the whole clip.
    """

    stage: str
    grid: Grid
    attentions: list[Attention]
    label: int
    probability: float
    cam: np.ndarray

    def strongest_motion(self, t: int | None = None) -> tuple[int, int, int]:
        """t, y, x where the last block sees the most motion; of one pair of frames if t is given.

        Not at the border where that can be helped: what comes in there, and the padding, would always win.
        """
        saliency = self.attentions[-1].saliency
        top, left = (1 if side > 2 else 0 for side in saliency.shape[1:])
        inner = saliency[:, top : saliency.shape[1] - top, left : saliency.shape[2] - left]
        if t is None:
            t = int(inner.max(axis=(1, 2)).argmax())
        y, x = np.unravel_index(inner[t].argmax(), inner[t].shape)
        return t, int(y) + top, int(x) + left

    def stacked(self, t: int, y: int, x: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
        """The points that reach a query through the last `blocks` SIFA blocks: the last block's points, the points of
        the block before for each of these (at the position nearest to it), and so on.

        Every block is taken at the same pair of frames t and t+1, as in the paper's figure 5. Points that sample zeros
        are left out: those a whole position or more beyond the map. Nearer ones have a share of its border; they may be
        beyond the frame.

        Returns:
            (n, 2), y and x in positions, and (n,), the product of the weights on the way.
        """
        points, weights = np.array([[y, x]], dtype=float), np.ones(1)
        for attention in reversed(self.attentions[-blocks:]):
            height, width = attention.saliency.shape[1:]
            rows, columns = np.rint(points).astype(int).T
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            rows, columns = rows[inside], columns[inside]
            weights = (weights[inside] * attention.weights[t][:, rows, columns]).T.ravel()  # (n, k*k) flat
            points = attention.points[t][:, :, rows, columns].transpose(2, 0, 1).reshape(-1, 2)
        sampling = (points > -1).all(1) & (points < (height, width)).all(1)
        return points[sampling], weights[sampling]


def explain(network: Network, clip: Tensor, stage: str, label: int | None = None) -> Explanation:
    """Runs a clip through a network in eval mode and keeps what a stage did.

    Args:
        clip: (1, 3, T, S, S), normalised, on the network's device.
        stage: res2..res5. Of the dual head's two copies of res5 it is the first.
        label: the class of Grad-CAM; None: the one that is predicted.

    Raises:
        ValueError: the stage has no SIFA, or the network's answer is not finite.
    """
    blocks = stage_blocks(network, stage)
    with _inputs_of_sifa(blocks) as inputs, _output_of(blocks[-1]) as outputs, torch.enable_grad():
        logits = network(clip)
        probabilities = torch.stack([head.float().softmax(1) for head in logits]).mean(0)[0].detach()
        if not probabilities.isfinite().all():
            raise ValueError(f"the network answers with {probabilities[0]:g}: its weights are no use")
        label = int(probabilities.argmax()) if label is None else label
        (gradient,) = torch.autograd.grad(sum(head[0, label] for head in logits), outputs)
    with torch.no_grad():
        attentions = [Attention.of(name, module, seen) for name, module, seen in inputs]
    if not attentions:
        raise ValueError(f"{stage} of this network has no SIFA; it is in {', '.join(stages_with_sifa(network))}")
    activation = outputs[0].detach()
    if isinstance(network, SIFASwin):  # (N, T, H, W, C)
        activation, gradient = activation.movedim(-1, 2), gradient.movedim(-1, 2)
    cam = (activation * gradient.mean(dim=(1, 3, 4), keepdim=True)).sum(2)[0].relu()  # (T, H, W)
    cam = cam / cam.max().clamp(min=1e-12)
    stride = 4 * 2 ** STAGES.index(stage)
    grid = Grid(stride, (stride - 1) / 2 if isinstance(network, SIFASwin) else 0.0)
    return Explanation(stage, grid, attentions, label, float(probabilities[label]), cam.cpu().float().numpy())


def stage_blocks(network: Network, stage: str) -> list[nn.Module]:
    """The blocks of res2..res5."""
    index = STAGES.index(stage)
    if isinstance(network, SIFASwin):
        return list(network.layers[index].blocks)  # type: ignore[arg-type]
    return list(getattr(network, f"layer{index + 1}"))


def stages_with_sifa(network: Network) -> list[str]:
    return [
        stage
        for stage in STAGES
        if any(isinstance(m, InterFrameAttention) for b in stage_blocks(network, stage) for m in b.modules())
    ]


@contextmanager
def _inputs_of_sifa(blocks: list[nn.Module]) -> Iterator[list[tuple[str, InterFrameAttention, Tensor]]]:
    """Fills a list with name, module and input of the SIFA modules of blocks as they run."""
    caught: list[tuple[str, InterFrameAttention, Tensor]] = []

    def keep(name: str, module: InterFrameAttention, inputs: tuple[Tensor]) -> None:
        caught.append((name, module, inputs[0].detach()))

    hooks = [
        module.register_forward_pre_hook(partial(keep, f"block {number}"))
        for number, block in enumerate(blocks, start=1)
        for module in block.modules()
        if isinstance(module, InterFrameAttention)
    ]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _output_of(module: nn.Module) -> Iterator[list[Tensor]]:
    caught: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    try:
        yield caught
    finally:
        hook.remove()
