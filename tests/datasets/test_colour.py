"""Colour operations against torchvision's, on pictures like photographs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torchvision.transforms.v2 import functional

from benchmarks.pictures import natural_clip
from datasets import colour
from tests.datasets.conftest import channels_first


def difference(operation: Callable[..., None], reference: Callable[..., Any], *values: Any) -> np.ndarray:
    """In grey levels, for a clip that the operation changes in place."""
    clip = natural_clip(3, 60, 80)
    expected = reference(channels_first(clip), *values).permute(0, 2, 3, 1).numpy().astype(int)
    result = clip.copy()
    operation(result, *values)
    assert np.abs(clip - expected).mean() > 1, "this comparison would not miss the operation"
    return np.abs(result - expected)


@pytest.mark.parametrize("factor", [0.1, 0.6, 1.4, 1.9])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
def test_distances_times_a_factor(name: str, factor: float) -> None:
    found = difference(getattr(colour, name), getattr(functional, f"adjust_{name}"), factor)
    assert found.max() <= (0 if name == "brightness" else 1)
    assert found.mean() < 0.5


@pytest.mark.parametrize(
    ("operation", "reference", "values"),
    [
        (colour.posterize, functional.posterize, (4,)),
        (colour.posterize, functional.posterize, (6,)),
        (colour.solarize, functional.solarize, (76.5,)),
        (colour.solarize, functional.solarize, (0.0,)),
        (colour.autocontrast, functional.autocontrast, ()),
        (colour.equalize, functional.equalize, ()),
    ],
)
def test_tables_are_exact(
    operation: Callable[..., None], reference: Callable[..., Any], values: tuple[Any, ...]
) -> None:
    assert difference(operation, reference, *values).max() == 0


def test_plain_and_two_coloured_pictures_are_no_special_case() -> None:
    clip = np.full((2, 12, 16, 3), 77, dtype=np.uint8)
    clip[1, :4] = 90
    for name in ("autocontrast", "equalize"):
        result = clip.copy()
        getattr(colour, name)(result)
        expected = getattr(functional, name)(channels_first(clip)).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(result, expected)


@pytest.mark.parametrize("turn", [-0.1, 0.03, 0.1, 0.5])
def test_hue_is_turned_in_256_steps(turn: float) -> None:
    found = difference(colour.hue, functional.adjust_hue, turn)
    assert found.mean() < 1
    assert found.max() <= 7  # 8-bit hue has 43 steps from red to yellow


def test_hue_turns_by_what_it_says() -> None:
    clip = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    clip[..., 0] = 200
    colour.hue(clip, 0.1)
    # A tenth of the circle from red towards green is 0.6 of the way to yellow.
    assert clip[0, 0, 0].tolist() == pytest.approx([200, 120, 0], abs=5)


def test_grey_is_within_a_level() -> None:
    found = difference(colour.grayscale, lambda clip: functional.rgb_to_grayscale(clip, 3))
    assert found.max() <= 1
    assert found.mean() < 0.1


@pytest.mark.parametrize("sigma", [0.7, 1.3, 2.0])
def test_blur_is_gaussian(sigma: float) -> None:
    found = difference(colour.blur, lambda clip, sigma: functional.gaussian_blur(clip, [13, 13], [sigma]), sigma)
    assert found.max() <= 2
    assert found.mean() < 0.3


def test_blur_keeps_plain_surfaces() -> None:
    for sigma in np.linspace(0.1, 2, 40):
        clip = np.full((1, 30, 30, 3), 201, dtype=np.uint8)
        colour.blur(clip, sigma)
        assert (clip == 201).all()
