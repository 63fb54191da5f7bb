"""RandAugment's operations and draws are torchvision's."""

from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from benchmarks.pictures import natural_clip
from datasets.rand_augment import OPERATIONS, apply_random_operations
from tests.datasets.conftest import channels_first

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
    operation, has_directions = OPERATIONS[name]
    magnitudes, signed = REFERENCE._AUGMENTATION_SPACE[name]
    assert has_directions == signed
    values = magnitudes(31, 60, 80)
    sign = sign if signed else 1
    value = 0.0 if values is None else float(values[magnitude]) * sign
    # Neither the choice of an operation nor its magnitude can be given to the public class.
    expected = REFERENCE._apply_image_or_video_transform(
        channels_first(clip), name, value, interpolation=REFERENCE.interpolation, fill=REFERENCE._fill
    )
    result = clip.copy()
    operation(result, sign * magnitude / 30)
    difference = np.abs(result.astype(int) - expected.permute(0, 2, 3, 1).numpy())
    assert difference.max() <= TOLERANCE.get(name, 0)


def test_the_same_seed_draws_what_torchvision_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    clip, drawn = natural_clip(2, 60, 80), []
    for name, (operation, has_directions) in OPERATIONS.items():

        def recorded(clip: np.ndarray, strength: float, name: str = name, operation: Any = operation) -> None:
            drawn.append(name)
            operation(clip, strength)

        monkeypatch.setitem(OPERATIONS, name, (recorded, has_directions))
    for seed in range(60):
        torch.manual_seed(seed)
        expected = v2.RandAugment(2, 27, num_magnitude_bins=31)(channels_first(clip))
        torch.manual_seed(seed)
        result = clip.copy()
        apply_random_operations(result, 2, 27)
        difference = np.abs(result.astype(int) - expected.permute(0, 2, 3, 1).numpy())
        # A level of the first operation's may be several after an equalisation, or the other side of solarize.
        assert difference.mean() < 1, drawn[-2:]
    assert set(drawn) == set(OPERATIONS)
