"""output_dir: one training at a time, and nothing of an earlier one where a training looks for its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from engine.distributed import Process
from engine.run_dir import archive_previous_run, lock_output_dir

MAIN = Process(0, 1, torch.device("cpu"))


def leave(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


EARLIER = {
    "scores.npz",
    "checkpoints/last.pth",
    "checkpoints/epoch_1.pth",
    "metrics.jsonl",
    "tensorboard/events.1",
    "config.yml",
}


def test_what_an_earlier_training_left_is_moved_and_nothing_else(tmp_path: Path) -> None:
    leave(tmp_path, *EARLIER, "settings.yml")
    assert str(tmp_path / "earlier_1") in archive_previous_run(tmp_path, None)
    assert contents(tmp_path) == {f"earlier_1/{name}" for name in EARLIER} | {"settings.yml"}
    assert archive_previous_run(tmp_path, None) == "", "there is nothing more"
    leave(tmp_path, "checkpoints/last.pth")
    archive_previous_run(tmp_path, Path("elsewhere/checkpoints/last.pth"))
    assert contents(tmp_path / "earlier_2") == {"checkpoints/last.pth"}


def test_a_training_that_left_nothing_to_go_on_from_stays(tmp_path: Path) -> None:
    leave(tmp_path, "log.txt", "config.yml", "tensorboard/events.1")
    assert archive_previous_run(tmp_path, None) == ""
    assert contents(tmp_path) == {"log.txt", "config.yml", "tensorboard/events.1"}


@pytest.mark.parametrize(
    ("kept", "moved"),
    [
        ("last.pth", set()),
        ("before_last.pth", {"last.pth"}),
        ("epoch_2.pth", {"last.pth", "before_last.pth", "epoch_3.pth"}),
        ("epoch_3.pth", set()),  # the same file as last.pth
    ],
)
def test_of_its_own_checkpoints_the_newer_ones_are_moved(kept: str, moved: set[str], tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    leave(checkpoints, "last.pth", "before_last.pth", "epoch_1.pth", "epoch_2.pth")
    (checkpoints / "epoch_3.pth").hardlink_to(checkpoints / "last.pth")
    leave(tmp_path, "metrics.jsonl")
    before = contents(checkpoints)
    archive_previous_run(tmp_path, checkpoints / kept)
    assert contents(tmp_path / "earlier_1") == {f"checkpoints/{name}" for name in moved}
    assert contents(checkpoints) == before - moved
    assert (tmp_path / "metrics.jsonl").exists()


HOLD = """
import sys, torch
from pathlib import Path
from engine.distributed import Process
from engine.run_dir import lock_output_dir
with lock_output_dir(Path(sys.argv[1]), Process(0, 1, torch.device("cpu"))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_training_until_it_ends_or_dies(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another training writes to"), lock_output_dir(tmp_path, MAIN):
        pass
    other.kill()
    other.communicate()
    with lock_output_dir(tmp_path, MAIN):
        pass
