"""Batches as the network takes them."""

import re

import pytest
import torch

from datasets import normalise

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])


def clips(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_normalisation_is_imagenets(device: torch.device, dtype: torch.dtype) -> None:
    batch = clips(2, 4, 5, 7, 3)
    expected = ((batch / 255 - MEAN) / STD).permute(0, 4, 1, 2, 3).to(dtype)
    torch.testing.assert_close(normalise(batch.to(device), dtype).cpu(), expected)


def test_frames_are_channels_last_in_memory() -> None:
    batch = normalise(clips(2, 4, 6, 8, 3))
    assert batch.shape == (2, 3, 4, 6, 8)
    frames = batch.transpose(1, 2).view(2 * 4, 3, 6, 8)  # the folding of a 2D network is a view
    assert frames.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("batch", [clips(2, 4, 6, 8, 3).float(), clips(4, 6, 8, 3), clips(2, 3, 4, 6, 8)])
def test_clips_of_another_form_are_refused(batch: torch.Tensor) -> None:
    message = f"clips must be uint8 (N, T, H, W, 3), got {batch.dtype} {tuple(batch.shape)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        normalise(batch)
