"""The validation clip whose attention TensorBoard shows during a training."""

import logging

from torch import nn
from torch.utils.tensorboard import SummaryWriter

from common.errors import describe
from engine.eval_loop import Validator
from engine.scores import middle_view

log = logging.getLogger("sifa")


def record_validation_clip(
    events: SummaryWriter, model: nn.Module, validator: Validator, classes: list[str], epoch: int
) -> None:
    """Records what SIFA does with the middle view of the middle video, see `record_attention`.

    A picture that fails is a warning: it never ends a training.
    """
    try:
        _record(events, model, validator, classes, epoch)
    except Exception as error:
        log.warning(f"no picture of epoch {epoch} for TensorBoard: {type(error).__name__}: {describe(error)}")


def _record(events: SummaryWriter, model: nn.Module, validator: Validator, classes: list[str], epoch: int) -> None:
    from visualization.tensorboard import record_attention  # matplotlib, a second at the start of every process

    data, device = validator.data, validator.process.device
    video = len(data.videos) // 2
    frames, label, _ = data[video * data.views + middle_view(data.num_clips, data.num_crops)]
    record_attention(
        events,
        model,  # type: ignore[arg-type]  # the training loop knows no networks
        validator.batches.to_input(frames[None].to(device)),
        frames.numpy(),
        title=data.videos[video].path,
        label=label,
        classes=classes,
        epoch=epoch,
    )
