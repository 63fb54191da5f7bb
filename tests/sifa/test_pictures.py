"""A picture that fails is one warning in the log of a training."""

import logging
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

from models import build_model
from sifa.pictures import record_validation_clip


class FailingValidator:
    """A validator whose videos have gone."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(28, "No space left on device", "events\x1b[31m")


def test_a_failing_picture_is_one_warning(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = build_model("c2d_sifa_resnet50", num_classes=3, clip_length=8, width=4)
    with SummaryWriter(str(tmp_path)) as events, caplog.at_level(logging.WARNING, "sifa"):
        record_validation_clip(events, model, FailingValidator(), [], 3)  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == [
        "no picture of epoch 3 for TensorBoard: OSError: events\\x1b[31m: No space left on device"
    ]
