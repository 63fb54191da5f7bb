"""Checkpoints of others, made once for a file of tests."""

import pytest
import torch
import torchvision
from torch import Tensor

from tests.models.checkpoints import CASE
from tests.models.golden import release_state_dict


@pytest.fixture(scope="module")
def release() -> dict[str, Tensor]:
    return release_state_dict(CASE)


@pytest.fixture(scope="module")
def imagenet() -> dict[str, Tensor]:
    return torchvision.models.resnet50().state_dict()


@pytest.fixture(scope="module")
def torchvision_swin() -> dict[str, Tensor]:
    network = torchvision.models.SwinTransformer([4, 4], 6, [2, 2, 18, 2], [3, 6, 12, 24], [7, 7])
    return {name: torch.randn_like(v) if v.is_floating_point() else v for name, v in network.state_dict().items()}
