"""What SIFA does while a network trains, for TensorBoard: how far it looks, and where in a validation clip."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from models import Network
from models.sifa_resnet import STEM_FRAMES
from models.weights import STEM_INDEX
from visualization.explanation import Explanation, explain, stages_with_sifa
from visualization.figure import Moment, draw


def record_attention(
    events: SummaryWriter,
    model: Network,
    clip: Tensor,
    frames: np.ndarray,
    *,
    title: str,
    label: int,
    classes: list[str],
    epoch: int,
) -> None:
    """Writes for each stage with SIFA a histogram of the lengths of all offsets, in pixels of the network's input; and
    for the last but one of these stages (usually res4) the picture of tools/visualize.py at the strongest motion.

    Does nothing for a network without SIFA, whose result is not finite, or whose clips are one feature frame.

    Args:
        events: of TensorBoard.
        model: the bare network; its mode and gradients stay as they are.
        clip: (1, 3, T, H, W), as the network takes it.
        frames: uint8 (T, H, W, 3), RGB, the same clip.
        title: of the video.
        label: its class.
        classes: their names, or none.
        epoch: for the axis of TensorBoard.
    """
    stages = stages_with_sifa(model)
    if not stages or len(frames) < 2 * STEM_FRAMES:
        return
    pictured = stages[-2:][0]
    with _in_evaluation(model), torch.compiler.set_stance("force_eager"):  # compiled code has no hooks
        clip = clip.requires_grad_()  # Grad-CAM needs a gradient even if all weights are frozen
        for stage in stages:
            try:
                seen = explain(model, clip, stage)
            except ValueError:  # not finite; the log tells about the loss
                return
            lengths = [np.linalg.norm(a.offsets, axis=2).ravel() * seen.grid.stride for a in seen.attentions]
            events.add_histogram(f"offset length in pixels/{stage}", np.concatenate(lengths), epoch)
            if stage == pictured:
                events.add_image("attention", _picture(frames, seen, title, label, classes), epoch)


def _picture(frames: np.ndarray, seen: Explanation, title: str, label: int, classes: list[str]) -> np.ndarray:
    """(3, H, W) for the add_image of TensorBoard."""
    t, y, x = seen.strongest_motion()
    shown = frames[STEM_INDEX::STEM_FRAMES]
    says, right = (classes[i] if classes else str(i) for i in (seen.label, label))
    picture = draw(
        Moment(shown[t], shown[t + 1], frames.shape[1], t, y, x),
        seen,
        title=f"{says}  {100 * seen.probability:.1f} %",
        subtitle=f"{title}, which is {right}; {seen.stage}, whose maps are {seen.cam.shape[1]} x {seen.cam.shape[2]}",
        class_name=says,
        blocks=min(2, len(seen.attentions)),
    )
    return picture.transpose(2, 0, 1)


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Neither the mode nor the gradients of the network are others afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
