"""Which clips int8 is calibrated and compared on, and what the comparison says."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.schema import Config
from sifa.export import Runner
from sifa.quantization import compare, sample_clips
from tests.sifa.clips import FRAMES, SIZE, settings_with_videos


def test_calibration_is_on_training_videos_and_the_comparison_on_others(tmp_path: Path) -> None:
    config = Config.model_validate(settings_with_videos(tmp_path))
    other = tmp_path / "other.txt"
    other.write_text(f"1 {FRAMES} 1\n3 {FRAMES} 3\n")
    config = config.model_copy(update={"dataset": config.dataset.model_copy(update={"list_file": str(other)})})
    assert sample_clips(config, 99, train=True)[1] == [1, 3]
    clips, labels = sample_clips(config, 3, train=False)
    assert labels == [0, 2, 0], "spread over the list's six"
    assert all(clip.shape == (1, 3, FRAMES, SIZE, SIZE) for clip in clips)
    assert abs(torch.cat(clips).mean().item()) < 0.5, "normalised"


def test_the_comparison() -> None:
    def network(answers: list[list[float]]) -> Runner:
        rows = {clip: torch.tensor([row]) for clip, row in enumerate(answers)}
        return lambda clip: rows[int(clip.flatten()[0])]

    clips: list[Tensor] = [torch.full((1, 3, 1, 1, 1), float(i)) for i in range(4)]
    one = network([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    other = network([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.6, 0.4]])
    result = compare({"one": one, "other": other}, clips, [0, 1, 1, 1])["other"]
    assert (result.clips, result.agreement, result.right) == (4, 75.0, (75.0, 50.0))
    assert result.difference == pytest.approx(0.1)
    assert result.largest == pytest.approx(0.2)
    same = compare({"one": one, "same": one}, clips, [0, 1, 1, 1])["same"]
    assert (same.agreement, same.largest) == (100.0, 0.0)
