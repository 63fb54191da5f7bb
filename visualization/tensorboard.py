"""What SIFA does while a network trains, for TensorBoard: lengths of its offsets, and a picture of its attention."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from models import Network
from visualization.explanation import Explanation, explain
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
    """Writes what SIFA does with a clip.

    For each stage with SIFA: a histogram of the lengths of all offsets, in pixels of the network's input. For the last
    but one of these stages (usually res4): the picture of `visualization.draw` at the strongest motion.

    Writes nothing for a network without SIFA, one whose result is not finite, or one whose clips are a single feature
    frame.

    Args:
        events: of TensorBoard.
        model: the bare network; its mode and gradients do not change.
        clip: (1, 3, T, H, W), as the network takes it.
        frames: uint8 (T, H, W, 3), RGB, the same clip.
        title: of the video.
        label: class of the video.
        classes: names of the classes, or an empty list.
        epoch: position on the axis of TensorBoard.
    """
    stages = model.stages_with_sifa()
    if not stages or len(frames) < 2 * model.stem_frames:
        return
    drawn_stage = stages[-2:][0]
    with _evaluation_mode(model), torch.compiler.set_stance("force_eager"):  # compiled code has no hooks
        clip = clip.requires_grad_()  # Grad-CAM needs a gradient even if all weights are frozen
        for stage in stages:
            try:
                explanation = explain(model, clip, stage)
            except ValueError:  # the result is not finite; the log reports it with the loss
                return
            stride = explanation.grid.stride
            lengths = [np.linalg.norm(a.offsets, axis=2).ravel() * stride for a in explanation.attentions]
            events.add_histogram(f"offset length in pixels/{stage}", np.concatenate(lengths), epoch)
            if stage == drawn_stage:
                shown = frames[model.shown_frames]
                events.add_image("attention", _picture(shown, explanation, title, label, classes), epoch)


def _picture(frames: np.ndarray, explanation: Explanation, title: str, label: int, classes: list[str]) -> np.ndarray:
    """(3, H, W) for add_image of TensorBoard; frames stand for the feature frames, one for each."""
    t, y, x = explanation.strongest_motion()
    predicted, right = (classes[i] if classes else str(i) for i in (explanation.label, label))
    height, width = explanation.cam.shape[1:]
    picture = draw(
        Moment(frames[t], frames[t + 1], frames.shape[1], t, y, x),
        explanation,
        title=f"{predicted}  {100 * explanation.probability:.1f} %",
        subtitle=f"{title}, which is {right}; {explanation.stage}, whose maps are {height} x {width}",
        class_name=predicted,
        blocks=min(2, len(explanation.attentions)),
    )
    return picture.transpose(2, 0, 1)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, the previous mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
