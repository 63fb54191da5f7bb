"""RandAugment's operations are torchvision's, at every magnitude, and are drawn evenly."""

from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from benchmarks.pictures import natural_clip
from datasets import rand_augment
from datasets.rand_augment import OPERATIONS, random_operations

from .conftest import channels_first

# Grey levels. The others look values up or move pixels, and are exact.
TOLERANCE = {"Color": 1, "Contrast": 1, "Sharpness": 1}
REFERENCE = v2.RandAugment(num_ops=1)


def test_the_operations_are_torchvisions() -> None:
    assert OPERATIONS.keys() == REFERENCE._AUGMENTATION_SPACE.keys()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("magnitude", [0, 9, 27, 30])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_operation_is_torchvisions(name: str, magnitude: int, sign: int) -> None:
    clip = natural_clip(2, 60, 80)
    magnitudes, signed = REFERENCE._AUGMENTATION_SPACE[name]
    values = magnitudes(31, 60, 80)
    value = 0.0 if values is None else float(values[magnitude]) * (sign if signed else 1)
    # Neither the choice of an operation nor its magnitude can be given to the public class.
    expected = REFERENCE._apply_image_or_video_transform(
        channels_first(clip), name, value, interpolation=REFERENCE.interpolation, fill=REFERENCE._fill
    )
    result = clip.copy()
    OPERATIONS[name](result, sign * magnitude / 30)
    difference = np.abs(result.astype(int) - expected.permute(0, 2, 3, 1).numpy())
    assert difference.max() <= TOLERANCE.get(name, 0)


def test_operations_and_signs_are_drawn_evenly_and_anew() -> None:
    torch.manual_seed(0)
    drawn: list[tuple[str, float]] = []
    fakes: dict[str, Any] = {
        name: lambda clip, strength, name=name: drawn.append((name, strength)) for name in OPERATIONS
    }
    with mock.patch.object(rand_augment, "OPERATIONS", fakes):
        for _ in range(1400):
            random_operations(np.zeros((1, 8, 8, 3), dtype=np.uint8), 2, 27)
    assert len(drawn) == 2800
    assert {abs(strength) for _, strength in drawn} == {0.9}
    for name in OPERATIONS:
        signs = [strength > 0 for operation, strength in drawn if operation == name]
        assert 140 < len(signs) < 260  # 200, four deviations
        assert 0.35 < np.mean(signs) < 0.65
    pairs = set(zip(drawn[::2], drawn[1::2], strict=True))
    assert len({(one[0], other[0]) for one, other in pairs}) > 180, "of 196 pairs"
