"""What other programs import: names that exist, packages with types, networks by name."""

from importlib import import_module
from pathlib import Path

import pytest
import torch

import sifa

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["cuda_sifa", "models", "datasets", "visualization", "sifa"])
def test_the_names_of_a_package_exist(name: str) -> None:
    package = import_module(name)
    assert package.__all__ == sorted(set(package.__all__), key=lambda name: (not name.isupper(), name))
    assert not [name for name in package.__all__ if not hasattr(package, name)]


@pytest.mark.parametrize("name", ["cuda_sifa", "common", "models", "datasets", "engine", "visualization", "sifa"])
def test_types_are_for_others_too(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


def test_every_network_of_the_list_can_be_made() -> None:
    with torch.device("meta"):
        for name in sifa.list_models():
            network = sifa.build_model(name, num_classes=2, clip_length=8)
            assert all(len(network.get_parameter(f"{head}.bias")) == 2 for head in network.classifiers)
