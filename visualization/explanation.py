"""What a network does with a clip: where SIFA samples and with which weights, what moves, and what decides the class.

Numbers only. Positions are those of a stage's maps; `models.network.Grid` converts them to pixels of the clip.
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
from models.network import Grid, mean_softmax


@dataclass(frozen=True)
class Attention:
    """What one SIFA module did to a clip of T feature frames, at each position (y, x) of its maps.

    Args:
        name: of the module's block in the stage.
        points: (T-1, k*k, 2, H, W), y and x where frame t+1 is sampled for the query of frame t, in positions.
        offsets: (T-1, k*k, 2, H, W), the predicted displacements in positions; zeros if the neighbourhood is regular.
        weights: (T-1, k*k, H, W), factors of the samples: <query, key> / C, the mean over heads; if the module
            has `cosine`, cosine / k^2. No softmax.
        saliency: (T-1, H, W), strength of motion: |sigmoid(f[t+1] - f[t]) - 1/2| * 2, mean over channels, in [0, 1],
            of the module's `features`.
    """

    name: str
    points: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    saliency: np.ndarray

    @classmethod
    def of(cls, name: str, module: InterFrameAttention, clip: Tensor) -> "Attention":
        """Computes the attention of a module.

        Args:
            name: of its block.
            module: SIFA.
            clip: its input (1, T, C, H, W), with T at least 2.
        """
        offset = module.predict_offset(clip)
        clip = module.features(clip)
        share = module.kernel_size**2 if module.cosine else 1  # a mean over the taps, not a sum
        frames, height, width = clip.shape[1], *clip.shape[3:]
        k, reach = module.kernel_size, module.kernel_size // 2
        # The reference has the release's index: the queries of frame t-1 are at t.
        shifted = None if offset is None else nn.functional.pad(offset, (0, 0) * 3 + (1, 0)).transpose(1, 2)
        weights = reference.correlation(clip.transpose(1, 2), shifted, k, module.dilation)[0, :, 1:].transpose(0, 1)
        taps = torch.stack(torch.meshgrid(torch.arange(k), torch.arange(k), indexing="ij")).flatten(1).T - reach
        places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
        regular = (taps * module.dilation)[:, :, None, None] + places  # (k*k, 2, H, W)
        offsets = (
            torch.zeros(frames - 1, *regular.shape)
            if offset is None
            else offset[0].unflatten(1, (k * k, 2)).cpu().float()
        )
        saliency = (torch.sigmoid(clip[0, 1:] - clip[0, :-1]) - 0.5).abs().mean(1) * 2
        return cls(
            name,
            (regular + offsets).numpy(),
            offsets.numpy(),
            (weights / share).cpu().float().numpy(),
            saliency.cpu().float().numpy(),
        )


@dataclass(frozen=True)
class Explanation:
    """What a network did with a clip of T feature frames, in one stage.

    Args:
        stage: res2..res5.
        grid: where in the clip the positions of the stage's maps are.
        attentions: of the stage's SIFA modules, from the first block to the last.
        label: the class that `cam` is about.
        probability: of that class.
        cam: (T, H, W), Grad-CAM of the stage's output, in [0, 1] over the whole clip.
    """

    stage: str
    grid: Grid
    attentions: list[Attention]
    label: int
    probability: float
    cam: np.ndarray

    def strongest_motion(self, t: int | None = None) -> tuple[int, int, int]:
        """t, y, x of the highest motion saliency in the last block.

        Positions at the border count only if a map has no others: what enters the frame there, and the padding, would
        always be the maximum.

        Args:
            t: the pair of frames t and t+1 to search; None: all pairs.
        """
        saliency = self.attentions[-1].saliency
        top, left = (1 if side > 2 else 0 for side in saliency.shape[1:])
        inner = saliency[:, top : saliency.shape[1] - top, left : saliency.shape[2] - left]
        if t is None:
            t = int(inner.max(axis=(1, 2)).argmax())
        y, x = np.unravel_index(inner[t].argmax(), inner[t].shape)
        return t, int(y) + top, int(x) + left

    def stacked(self, t: int, y: int, x: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
        """The points that reach a query through the last `blocks` SIFA blocks.

        These are the points of the last block, for each of them (at the nearest position) the points of the previous
        block, and so on. All blocks are taken at the same pair of frames t and t+1, as in the paper's figure 5. Points
        that sample zeros are left out: those a whole position or more outside the map. Nearer ones sample a share of
        the map's border, though they may be outside the frame.

        Args:
            t: the pair of frames t and t+1.
            y: row of the query, in positions.
            x: column of the query, in positions.
            blocks: how many.

        Returns:
            (n, 2), y and x in positions, and (n,), the product of the weights along the way.
        """
        points, weights = np.array([[y, x]], dtype=float), np.ones(1)
        for attention in reversed(self.attentions[-blocks:]):
            height, width = attention.saliency.shape[1:]
            rows, columns = np.rint(points).astype(int).T
            inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            rows, columns = rows[inside], columns[inside]
            weights = (weights[inside] * attention.weights[t][:, rows, columns]).T.ravel()  # (n*k*k,)
            points = attention.points[t][:, :, rows, columns].transpose(2, 0, 1).reshape(-1, 2)  # (n*k*k, 2)
        sampling = (points > -1).all(1) & (points < (height, width)).all(1)
        return points[sampling], weights[sampling]


def explain(network: Network, clip: Tensor, stage: str, label: int | None = None) -> Explanation:
    """Runs a clip through a network and records what a stage did.

    Args:
        network: in eval mode.
        clip: (1, 3, T, S, S), normalised, on the network's device.
        stage: res2..res5. Of the dual head's two copies of res5 it is the first.
        label: the class of Grad-CAM; None: the predicted class.

    Raises:
        ValueError: the stage has no SIFA, or the network's result is not finite.
    """
    modules, last_block = network.sifa_modules(stage), network.stage_blocks(stage)[-1]
    with _record_inputs(modules) as inputs, _record_output(last_block) as outputs, torch.enable_grad():
        logits = network(clip)
        probabilities = mean_softmax(logits)[0].detach()
        if not probabilities.isfinite().all():
            raise ValueError(f"the network answers with {probabilities[0]:g}: its weights are no use")
        label = int(probabilities.argmax()) if label is None else label
        (gradient,) = torch.autograd.grad(sum(head[0, label] for head in logits), outputs)
    if not inputs:
        raise ValueError(f"{stage} of this network has no SIFA; it is in {', '.join(network.stages_with_sifa())}")
    with torch.no_grad():
        attentions = [Attention.of(name, module, module_input) for name, module, module_input in inputs]
    activation = outputs[0].detach().movedim(network.channel_axis, 2)  # (1, T, C, H, W)
    gradient = gradient.movedim(network.channel_axis, 2)
    cam = (activation * gradient.mean(dim=(1, 3, 4), keepdim=True)).sum(2)[0].relu()  # (T, H, W)
    cam = cam / cam.max().clamp(min=1e-12)
    probability = float(probabilities[label])
    return Explanation(stage, network.grid(stage), attentions, label, probability, cam.cpu().float().numpy())


@contextmanager
def _record_inputs(
    modules: list[tuple[str, InterFrameAttention]],
) -> Iterator[list[tuple[str, InterFrameAttention, Tensor]]]:
    """Fills a list with name, module and input of SIFA modules, in the order in which they run."""
    recorded: list[tuple[str, InterFrameAttention, Tensor]] = []

    def record(name: str, module: InterFrameAttention, inputs: tuple[Tensor]) -> None:
        recorded.append((name, module, inputs[0].detach()))

    hooks = [module.register_forward_pre_hook(partial(record, name)) for name, module in modules]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _record_output(module: nn.Module) -> Iterator[list[Tensor]]:
    """Fills a list with the outputs of a module."""
    recorded: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: recorded.append(output))
    try:
        yield recorded
    finally:
        hook.remove()
