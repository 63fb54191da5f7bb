"""What every test shares."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

#: Files and folders that take minutes. They start first: processes share the suite by file (make.sh), and one of these
#: at the end would leave the others without work.
LONG = (
    "test_script_runs.py",
    "models/test_golden.py",
    "test_script.py",
    "cuda",
    "tools/test_export.py",
    "attacks",
    "op",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _turn(item.path.relative_to(Path(__file__).parent).as_posix()))
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _turn(file: str) -> int:
    return next((turn for turn, name in enumerate(LONG) if file.startswith(name)), len(LONG))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logger() -> Iterator[None]:
    """A run sets up the process's logger; the next test finds it as it was."""
    log = logging.getLogger("sifa")
    before = log.propagate, log.level, log.handlers[:]
    yield
    log.propagate, log.handlers[:] = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven tiny videos of three classes as frames, with a list, class names and settings."""
    from tests.script import write_data  # needs OpenCV, which the op's tests do without

    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder
