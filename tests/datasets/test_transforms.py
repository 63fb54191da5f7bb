"""Transforms: sizes, positions, normalisation, and one draw for the whole clip."""

import re
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from datasets import test_transform as transform_for_test
from datasets import train_transform, val_transform
from datasets.transforms import Blur, HueJitter

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])


def still_clip(frames: int = 4, height: int = 40, width: int = 56) -> Tensor:
    picture = torch.randint(
        0, 256, (1, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return picture.repeat(frames, 1, 1, 1)


def grey(normalised: Tensor) -> Tensor:
    """Back to 0..255."""
    return (normalised * STD.view(3, 1, 1, 1) + MEAN.view(3, 1, 1, 1)) * 255


@pytest.mark.parametrize("options", [{}, {"rand_augment": (2, 27)}, {"color_jitter": False}])
def test_training_keeps_a_still_clip_still_and_draws_anew_each_time(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    transform = train_transform(32, **options)
    results = [transform(still_clip()) for _ in range(20)]
    for result in results:
        assert (result.dtype, tuple(result.shape)) == (torch.float32, (3, 4, 32, 32))
        assert result.is_contiguous()
        assert torch.equal(result, result[:, :1].expand_as(result)), "frames of one clip were transformed differently"
    # Identity is the only way to get the same crop twice, and no two crops agree here.
    assert len({result.sum().item() for result in results}) == 20


def test_normalisation_is_imagenets() -> None:
    clip = torch.tensor([10, 100, 250], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 20, 24)
    expected = (torch.tensor([10, 100, 250]) / 255 - MEAN) / STD
    for transform in (val_transform(16), train_transform(16, color_jitter=False)):
        torch.testing.assert_close(transform(clip), expected.view(3, 1, 1, 1).expand(3, 2, 16, 16))


def test_flips_only_if_allowed() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).expand(2, 3, 48, 64)  # brighter to the right

    def leftward(flip: bool) -> int:
        torch.manual_seed(0)
        transform = train_transform(24, color_jitter=False, flip=flip)
        return sum(bool(result[0, 0, 0, 0] > result[0, 0, 0, -1]) for result in (transform(ramp) for _ in range(60)))

    assert leftward(False) == 0
    assert 18 < leftward(True) < 42


def test_short_side_jitter_keeps_the_scale_of_things() -> None:
    # A ramp of one grey level a pixel along the width: its slope in the crop tells by how much it was resized.
    clip = torch.arange(160, dtype=torch.uint8).expand(2, 3, 80, 160)
    transform = train_transform(64, color_jitter=False, flip=False, short_side=(64, 160))
    slopes = []
    for _ in range(60):
        out = transform(clip)[0, 0, 32]
        slopes.append(((out[48] - out[16]) / 32 * 255 * 0.229).item())
    assert min(slopes) == pytest.approx(80 / 160, abs=0.1)
    assert max(slopes) == pytest.approx(80 / 64, abs=0.1)
    assert len({round(slope, 2) for slope in slopes}) > 10


def test_erasing_leaves_out_the_same_rectangle_of_all_frames() -> None:
    clip = torch.full((3, 3, 48, 48), 255, dtype=torch.uint8)
    transform = train_transform(32, color_jitter=False, flip=False, erasing=0.5)
    shares = []
    for _ in range(60):
        erased = transform(clip) == 0
        assert torch.equal(erased, erased[:1, :1].expand_as(erased))
        shares.append(erased.float().mean().item())
    assert 15 < sum(share > 0 for share in shares) < 45
    assert max(shares) < 0.4


def test_hue_agrees_with_torchvision() -> None:
    clip = still_clip()
    for amount in (-0.1, 0.03, 0.1, 0.5):
        jitter = HueJitter(0.1)
        with mock.patch.object(Tensor, "uniform_", lambda self, *_, amount=amount: self.fill_(amount)):
            difference = (jitter(clip).float() - functional.adjust_hue(clip, amount).float()).abs()
        assert difference.mean() < 1.5
        assert difference.max() <= 12  # 8-bit hue has 43 steps from red to yellow
    assert (functional.adjust_hue(clip, 0.1).float() - clip).abs().mean() > 10, "the tolerance would miss no hue at all"


def test_blur_agrees_with_torchvision() -> None:
    clip = still_clip()
    for sigma in (0.1, 1.3, 2.0):
        with mock.patch.object(Tensor, "uniform_", lambda self, *_, sigma=sigma: self.fill_(sigma)):
            difference = (
                Blur(0.1, 2.0)(clip).float() - functional.gaussian_blur(clip, [13, 13], [sigma]).float()
            ).abs()
        assert difference.max() <= 2


def test_draws_stay_in_their_range() -> None:
    torch.manual_seed(0)
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    jitter = HueJitter(0.1)
    greens, blues = zip(*(jitter(red)[0, 1:, 0, 0].tolist() for _ in range(300)), strict=True)
    # 0.1 of the circle towards green (or blue) from red is 0.6 of the way to yellow (or magenta).
    assert max(greens) == pytest.approx(120, abs=5)
    assert max(blues) == pytest.approx(120, abs=5)


def test_scale_bounds_the_crops_area() -> None:
    torch.manual_seed(0)
    ramp = torch.arange(100, dtype=torch.uint8).expand(1, 3, 100, 100)
    transform = train_transform(50, color_jitter=False, flip=False, scale=(0.25, 0.25), ratio=(1, 1))
    for _ in range(5):
        row = grey(transform(ramp))[0, 0, 0]
        assert row[-1] - row[0] == pytest.approx(49, abs=1.5)  # half of each side


@pytest.mark.parametrize("tall", [False, True])
def test_crops_are_spaced_evenly_along_the_long_side(tall: bool) -> None:
    # 60 x 20 pixels, short side 20 already: nothing is resized and pixels are their own positions.
    clip = torch.arange(60, dtype=torch.uint8).expand(2, 3, 20, 60)
    clip = clip.transpose(2, 3) if tall else clip
    for crop, start in ((0, 0), (1, 20), (2, 40)):
        result = grey(transform_for_test(20, crop, 3)(clip))
        along = result[0, 1, :, 7] if tall else result[0, 1, 7, :]
        torch.testing.assert_close(along, torch.arange(start, start + 20.0), atol=0.01, rtol=0)
    torch.testing.assert_close(val_transform(20)(clip), transform_for_test(20, 1, 3)(clip))


def test_validation_resizes_the_short_side() -> None:
    ramp = torch.arange(0, 240, 2, dtype=torch.uint8).expand(1, 3, 60, 120)
    row = grey(val_transform(30)(ramp))[0, 0, 15]  # 60 x 120 becomes 30 x 60, columns 15..44: values 2 * (30..89)
    assert row[0] == pytest.approx(61, abs=1.5)
    assert row[-1] == pytest.approx(177, abs=1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 0}, "crop_size must be at least 8 pixels, got 0"),
        ({"crop_size": 32, "scale": (0.0, 1.0)}, "scale must be two numbers with 0 < low <= high, got (0.0, 1.0)"),
        ({"crop_size": 32, "ratio": (2.0, 1.0)}, "ratio must be two numbers with 0 < low <= high, got (2.0, 1.0)"),
        ({"crop_size": 32, "rand_augment": (2, 31)}, "(n, m) with n >= 0 and m in 0..30, got (2, 31)"),
        ({"crop_size": 32, "short_side": (20, 40)}, "short_side must be two numbers with crop_size 32 <= low"),
        ({"crop_size": 32, "erasing": 1.5}, "erasing must be a probability in 0..1, got 1.5"),
    ],
)
def test_training_refuses_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        train_transform(**options)


def test_refuses_a_crop_that_is_none() -> None:
    with pytest.raises(ValueError, match=re.escape("crop must be in 0..2 (num_crops is 3), got 3")):
        transform_for_test(32, 3, 3)
