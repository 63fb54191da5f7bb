"""Frames from a folder: order, colours, names, and what is said of those that are missing or broken."""

import re
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from common.errors import DataError
from datasets import FrameFolder
from tests.datasets.conftest import MakeVideo


def test_reads_the_frames_asked_for_once_each(make_video: MakeVideo) -> None:
    folder = make_video("walk/čáp 鳥", 6)
    with mock.patch.object(cv2, "imdecode", wraps=cv2.imdecode) as decode:
        clip = FrameFolder(folder.parents[1]).read("walk/čáp 鳥", [4, 0, 5, 5, 0, 5])
    assert decode.call_count == 3
    assert (clip.dtype, clip.shape) == (np.uint8, (6, 48, 64, 3))
    assert clip.mean(axis=(1, 2, 3)).round().tolist() == [45, 5, 55, 55, 5, 55]


def test_the_channels_are_rgb(tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), dtype=np.uint8)
    picture[..., 0] = 200  # OpenCV writes BGR: this is blue
    cv2.imwrite(str(tmp_path / "img_0.png"), picture)
    clip = FrameFolder(tmp_path, "img_{}.png", first=0).read(".", [0])
    assert clip[0, 7, 9].tolist() == [0, 0, 200]


def test_a_missing_frame_is_named(make_video: MakeVideo) -> None:
    folder = make_video("a", 2)
    with pytest.raises(DataError, match=re.escape(f"the frame {folder / '00003.jpg'} is missing") + "$"):
        FrameFolder(folder.parent).read("a", [0, 2])
    with pytest.raises(DataError, match=re.escape(f"00001.jpg is missing: there is no folder {folder.parent / 'b'}")):
        FrameFolder(folder.parent).read("b", [0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is broken: it does not decode as an image (0 bytes)"),
        (b"no picture", "is broken: it does not decode as an image (10 bytes)"),
    ],
)
def test_a_broken_frame_is_named(make_video: MakeVideo, data: bytes, message: str) -> None:
    file = make_video("a", 3) / "00002.jpg"
    file.write_bytes(data)
    with pytest.raises(DataError, match=re.escape(f"the frame {file} {message}")):
        FrameFolder(file.parents[1]).read("a", [0, 1, 2])


def test_a_truncated_frame_is_named_wherever_it_is_cut(make_video: MakeVideo) -> None:
    file = make_video("a", 1, still=True) / "00001.jpg"
    data = file.read_bytes()
    for size in (10, len(data) // 2, len(data) - 2):
        file.write_bytes(data[:size])
        with pytest.raises(DataError, match=re.escape(f"the frame {file} is broken")):
            FrameFolder(file.parents[1]).read("a", [0])
    # Some writers pad the file; that is no damage.
    file.write_bytes(data + b"\0\0\0")
    assert FrameFolder(file.parents[1]).read("a", [0]).shape == (1, 48, 64, 3)


def test_a_frame_of_another_size_is_named(make_video: MakeVideo) -> None:
    folder = make_video("a", 1)
    other = make_video("b", 2, size=(40, 64)) / "00002.jpg"
    other.rename(folder / "00002.jpg")
    message = f"the frame {folder / '00002.jpg'} must be 64x48, the size of the clip's other frames, got 64x40"
    with pytest.raises(DataError, match=re.escape(message)):
        FrameFolder(folder.parent).read("a", [0, 1])


def test_nothing_outside_the_root_is_read(make_video: MakeVideo) -> None:
    folder = make_video("inside/a", 1)
    make_video("outside", 1)
    with pytest.raises(DataError, match=re.escape("got '../outside'")):
        FrameFolder(folder.parent).read("../outside", [0])


def test_root_and_template_are_checked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"the folder of frames {tmp_path / 'no'} does not exist")):
        FrameFolder(tmp_path / "no")
    for template in ("frame.jpg", "{:05d", "{name}.jpg", "{:q}.jpg"):
        with pytest.raises(ValueError, match=re.escape(f"got {template!r}")):
            FrameFolder(tmp_path, template)
