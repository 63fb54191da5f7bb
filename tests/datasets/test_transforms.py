"""Transforms: sizes, positions, and one draw for the whole clip."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.pictures import natural_clip
from datasets import colour, train_transform, val_transform
from datasets import test_transform as transform_for_test
from datasets.transforms import jitter_and_blur
from tests.datasets.conftest import channels_first


def still_clip(frames: int = 4, height: int = 40, width: int = 56) -> np.ndarray:
    picture = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    return picture.repeat(frames, axis=0)


def ramp(width: int, height: int, step: int = 1) -> np.ndarray:
    """Two frames, `step` grey levels brighter from column to column."""
    row = np.arange(0, width * step, step, dtype=np.uint8)
    return np.broadcast_to(row[:, None], (2, height, width, 3))


@pytest.mark.parametrize("options", [{}, {"rand_augment": (2, 27)}, {"color_jitter": False}])
def test_training_keeps_a_still_clip_still_and_draws_again_each_time(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    transform = train_transform(32, **options)
    results = [transform(still_clip()) for _ in range(20)]
    for result in results:
        assert (result.dtype, result.shape) == (np.uint8, (4, 32, 32, 3))
        assert result.flags.c_contiguous
        assert (result == result[:1]).all(), "frames of one clip were transformed differently"
    # Identity is the only way to get the same crop twice, and no two crops agree here.
    assert len({result.tobytes() for result in results}) == 20


def test_plain_colours_pass_unchanged() -> None:
    clip = np.broadcast_to(np.array([10, 100, 250], dtype=np.uint8), (2, 20, 24, 3))
    for transform in (val_transform(16), train_transform(16, color_jitter=False)):
        assert np.array_equal(transform(clip), clip[:, :16, :16])


def test_flips_only_if_allowed() -> None:
    def leftward(flip: bool) -> int:
        torch.manual_seed(0)
        transform = train_transform(24, color_jitter=False, flip=flip)
        results = [transform(ramp(64, 48)) for _ in range(60)]
        return sum(bool(result[0, 0, 0, 0] > result[0, 0, -1, 0]) for result in results)

    assert leftward(False) == 0
    assert 18 < leftward(True) < 42


def test_short_side_jitter_keeps_the_scale_of_things() -> None:
    # The ramp's slope in the crop tells by how much it was resized.
    transform = train_transform(64, color_jitter=False, flip=False, short_side=(64, 160))
    slopes = []
    for _ in range(60):
        row = transform(ramp(160, 80))[0, 32, :, 0].astype(int)
        slopes.append((row[48] - row[16]) / 32)
    assert min(slopes) == pytest.approx(80 / 160, abs=0.1)
    assert max(slopes) == pytest.approx(80 / 64, abs=0.1)
    assert len({round(slope, 2) for slope in slopes}) > 10


def test_erasing_leaves_out_the_same_rectangle_of_all_frames() -> None:
    clip = np.full((3, 48, 48, 3), 255, dtype=np.uint8)
    transform = train_transform(32, color_jitter=False, flip=False, erasing=0.5)
    shares = []
    for _ in range(60):
        result = transform(clip)
        erased = (result == [124, 116, 104]).all(-1)  # ImageNet's mean
        assert (result[~erased] == 255).all()
        assert (erased == erased[:1]).all()
        shares.append(erased.mean())
    assert 15 < sum(share > 0 for share in shares) < 45
    assert max(shares) < 0.4


def test_crops_are_torchvisions_draw_and_result() -> None:
    clip = natural_clip(3, 60, 80)
    for seed in range(5):
        torch.manual_seed(seed)
        expected = v2.RandomResizedCrop(40, scale=(0.2, 1.0), antialias=True)(channels_first(clip))
        torch.manual_seed(seed)
        result = train_transform(40, color_jitter=False, flip=False)(clip)
        assert np.array_equal(result, expected.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("options", [{}, {"rand_augment": (2, 27)}])
def test_a_recipe_is_torchvisions_draw_and_result(options: dict[str, Any]) -> None:
    clip = natural_clip(2, 60, 80)
    colours: list[Any] = [
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], 0.5),
    ]
    if options:
        colours = [v2.RandAugment(*options["rand_augment"])]
    crop = v2.RandomResizedCrop(40, scale=(0.2, 1.0), antialias=True)
    reference = v2.Compose([crop, v2.RandomHorizontalFlip(), *colours])
    differences = []
    for seed in range(60):
        torch.manual_seed(seed)
        expected = reference(channels_first(clip)).permute(0, 2, 3, 1).numpy()
        torch.manual_seed(seed)
        differences.append(np.abs(train_transform(40, **options)(clip).astype(int) - expected).mean())
    assert np.mean(differences) < 0.5
    assert max(differences) < 2


@pytest.mark.parametrize(("height", "width"), [(64, 86), (86, 64), (50, 60), (40, 40)])
def test_validation_is_torchvisions_and_within_a_grey_level_of_pillows(height: int, width: int) -> None:
    clip = natural_clip(2, height, width)
    reference = v2.Compose([v2.Resize(40, antialias=True), v2.CenterCrop(40)])
    result = val_transform(40)(clip)
    assert np.array_equal(result, reference(channels_first(clip)).permute(0, 2, 3, 1).numpy())
    difference = np.abs(result[1].astype(int) - np.asarray(reference(Image.fromarray(clip[1]))))
    assert difference.max() <= 1


def test_the_clip_that_came_in_stays_as_it_is() -> None:
    torch.manual_seed(0)
    clip = natural_clip(2, 32, 32)
    before = clip.copy()
    recipes: list[dict[str, Any]] = [{}, {"rand_augment": (3, 27)}, {"short_side": (32, 32), "erasing": 1.0}]
    for options in recipes:
        for _ in range(10):
            assert not np.shares_memory(train_transform(32, **options)(clip), clip)
    assert not np.shares_memory(val_transform(32)(clip), clip)
    assert np.array_equal(clip, before)


def test_jitter_and_blur_come_as_often_and_as_strong_as_in_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    drawn: dict[str, list[float]] = {}
    for name in ("brightness", "contrast", "saturation", "hue", "grayscale", "blur"):
        record = drawn.setdefault(name, [])
        monkeypatch.setattr(colour, name, lambda clip, value=0.0, record=record: record.append(value))
    clip = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    for _ in range(2000):
        jitter_and_blur(clip)
    ranges = {"brightness": (0.6, 1.4), "contrast": (0.6, 1.4), "saturation": (0.6, 1.4), "hue": (-0.1, 0.1)}
    for name, (low, high) in (ranges | {"blur": (0.1, 2.0)}).items():
        assert low <= min(drawn[name]) < low + 0.05 * (high - low)
        assert high >= max(drawn[name]) > high - 0.05 * (high - low)
    shares = {name: len(values) / 2000 for name, values in drawn.items()}
    expected = dict.fromkeys(ranges, 0.8) | {"grayscale": 0.2, "blur": 0.5}
    assert shares == pytest.approx(expected, abs=0.04)  # four deviations


def test_jitter_comes_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    order: list[str] = []
    for name in ("brightness", "contrast", "saturation", "hue"):
        monkeypatch.setattr(colour, name, lambda clip, value, name=name: order.append(name))
    for name in ("grayscale", "blur"):
        monkeypatch.setattr(colour, name, lambda clip, value=0.0: None)
    for _ in range(400):
        jitter_and_blur(np.zeros((1, 8, 8, 3), dtype=np.uint8))
    assert len({tuple(order[i : i + 4]) for i in range(0, len(order), 4)}) == 24


def test_scale_bounds_the_crops_area() -> None:
    torch.manual_seed(0)
    transform = train_transform(50, color_jitter=False, flip=False, scale=(0.25, 0.25), ratio=(1, 1))
    for _ in range(5):
        row = transform(ramp(100, 100))[0, 0, :, 0].astype(int)
        assert row[-1] - row[0] == pytest.approx(49, abs=1.5)  # half of each side


@pytest.mark.parametrize("tall", [False, True])
def test_crops_are_spaced_evenly_along_the_long_side(tall: bool) -> None:
    # 60 x 20 pixels, short side 20 already: nothing is resized and pixels are their own positions.
    clip = ramp(60, 20)
    clip = clip.transpose(0, 2, 1, 3) if tall else clip
    for crop, start in ((0, 0), (1, 20), (2, 40)):
        result = transform_for_test(20, crop, 3)(clip)
        along = result[1, :, 7, 0] if tall else result[1, 7, :, 0]
        assert along.tolist() == list(range(start, start + 20))
    assert np.array_equal(val_transform(20)(clip), transform_for_test(20, 1, 3)(clip))


def test_validation_resizes_the_short_side() -> None:
    row = val_transform(30)(ramp(120, 60, step=2))[0, 15, :, 0]  # 30 x 60, columns 15..44: values 2 * (30..89)
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
