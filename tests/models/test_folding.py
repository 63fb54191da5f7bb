"""Time as part of the batch."""

import pytest
import torch

from models.folding import merge_time, pool_time, split_time, stack_frames


def test_merging_and_splitting_time_are_views() -> None:
    clip = torch.randn(2, 3, 5, 7, 4).permute(0, 1, 4, 2, 3)  # channels innermost
    maps = merge_time(clip)
    assert maps.shape == (6, 4, 5, 7)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert maps.data_ptr() == clip.data_ptr()
    assert split_time(maps, 3).data_ptr() == clip.data_ptr()
    assert torch.equal(split_time(maps, 3), clip)


def test_stacked_frames_make_a_2d_convolution_a_strided_3d_one() -> None:
    clip, kernel = torch.randn(2, 3, 8, 9, 11).double(), torch.randn(5, 3, 4, 7, 7).double()
    expected = torch.nn.functional.conv3d(clip, kernel, stride=(4, 2, 2), padding=(0, 3, 3))
    stacked = stack_frames(clip, 4)
    merged = torch.nn.functional.conv2d(merge_time(stacked), kernel.flatten(1, 2), stride=2, padding=3)
    torch.testing.assert_close(split_time(merged, 2).transpose(1, 2), expected)


@pytest.mark.parametrize("frames", [0, 3, 6])
def test_frames_that_are_no_multiple(frames: int) -> None:
    with pytest.raises(ValueError, match=f"positive multiple of 4, got T={frames}"):
        stack_frames(torch.zeros(1, 3, frames, 4, 4), 4)


def test_pool_time_is_a_max_pool_over_pairs() -> None:
    clip = torch.randn(2, 6, 3, 4, 5)
    expected = torch.nn.functional.max_pool3d(clip.transpose(1, 2), (2, 1, 1)).transpose(1, 2)
    assert torch.equal(pool_time(clip), expected)
    with pytest.raises(ValueError, match="must be even, got 3"):
        pool_time(clip[:, :3])
