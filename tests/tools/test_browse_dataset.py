"""Contact sheets show the frames of the samples they name, as the network gets them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tools import browse_dataset
from visualization.caption import HEIGHT

FRAMES, VIDEOS = 6, 10


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten videos; frame i (0-based) of video v is grey 20 * v + 3 * i all over."""
    for video in range(VIDEOS):
        folder = tmp_path / f"frames/v{video}"
        folder.mkdir(parents=True)
        for i in range(FRAMES):
            picture = np.full((24, 36, 3), 20 * video + 3 * i, dtype=np.uint8)
            (folder / f"{i + 1:05d}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    (tmp_path / "list.txt").write_text("".join(f"v{video} {FRAMES} {video % 2}\n" for video in range(VIDEOS)))
    (tmp_path / "classes.txt").write_text("left\nright\n")
    (tmp_path / "settings.yml").write_text(
        f"""
dataset:
  root_path: {tmp_path}/frames
  list_file: {tmp_path}/list.txt
  eva_list_file: {tmp_path}/list.txt
  classes_file: {tmp_path}/classes.txt
  num_classes: 2
  clip_length: 6
transform: {{crop_size: 16, color_jitter: false}}
evaluation: {{eva_crop_size: 16, eva_num_crop: 3}}
"""
    )
    return tmp_path


def run(data: Path, *options: str) -> int:
    return browse_dataset.main([str(data / "sheets"), f"--config_file={data / 'settings.yml'}", *options])


def greys(file: Path, rows: int, columns: int) -> np.ndarray:
    """Grey of each frame, below the line of text of each row."""
    picture = np.asarray(cv2.imread(str(file)), dtype=float)
    assert picture.shape == (rows * (18 + HEIGHT), columns * 18, 3)
    tops = [(18 + HEIGHT) * y + HEIGHT for y in range(rows)]
    assert all(picture[top - HEIGHT : top].max() > 200 for top in tops), "a text stands there"
    return np.array([[picture[top + 8, 18 * x + 8].mean() for x in range(columns)] for top in tops])


def test_rows_are_clips_and_columns_their_frames(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "--count=10", "--frames=3") == 0
    out = capsys.readouterr().out.splitlines()
    first, second = data / "sheets/train_000.png", data / "sheets/train_001.png"
    assert out[1] == f"{first} row 2: v1, class 1 right, sample 1"
    assert out[9] == f"{second} row 2: v9, class 1 right, sample 9"
    expected = [[20 * video + 3 * i for i in (0, 2, 5)] for video in range(10)]
    np.testing.assert_allclose(greys(first, 8, 3), expected[:8], atol=1.5)
    np.testing.assert_allclose(greys(second, 2, 3), expected[8:], atol=1.5)


def test_chosen_views_of_the_validation(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(data, "--split=val", "--index", "5", "14") == 0
    assert [line.partition(": ")[2] for line in capsys.readouterr().out.splitlines()] == [
        "v1, class 1 right, sample 5",
        "v4, class 0 left, sample 14",
    ]
    np.testing.assert_allclose(greys(data / "sheets/val_000.png", 2, 6)[:, 0], [20, 80], atol=1.5)


def test_dark_videos_brighter_and_no_argument_swallowed(data: Path) -> None:
    argv = ["--set", "transform.horizontal_flip=false", "seed=1", "--index", "2", "1", str(data / "bright")]
    assert browse_dataset.main([f"--config_file={data / 'settings.yml'}", "--gamma=0.5", "--frames=1", *argv]) == 0
    found = greys(data / "bright/train_000.png", 2, 1)[:, 0]
    np.testing.assert_allclose(found, 255 * np.sqrt(np.array([40, 20]) / 255), atol=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gamma=0"], "--gamma must be a number above 0, got 0"),
        (["--index", "10"], "--index must be in 0..9, got 10"),
        (["--count=0"], "--count and --frames must be at least 1"),
        (["--set", "dataset.formt=LMDB"], "format"),
        (["--set", "dataset.root_path=nowhere"], "dataset.root_path: there is no folder nowhere"),
    ],
)
def test_mistakes_are_one_line(
    data: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(data, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
