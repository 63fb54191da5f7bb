"""Frames from a folder: order, colours, names, and what is said of those that are missing or broken."""

import os
import re
import zlib
from pathlib import Path
from typing import Any
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


def test_a_template_with_endless_names_is_refused(tmp_path: Path) -> None:
    for template in ("{:0999999999d}", "{:5000000}", "{0:{1}d}", "{.real.x}"):
        with pytest.raises(ValueError, match=re.escape(f"got {template!r}")):
            FrameFolder(tmp_path, template)


def test_damage_within_a_jpeg_is_found(make_video: MakeVideo, capfd: pytest.CaptureFixture[str]) -> None:
    file = make_video("a", 1) / "00001.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", pixels)[1].tobytes()
    middle = len(data) // 2
    for damaged in (data[:middle] + data[middle + 900 :], data[:middle] + bytes(300) + data[middle + 300 :]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=re.escape(f"the frame {file} is broken: Corrupt JPEG data: ")):
            FrameFolder(file.parents[1]).read("a", [0])
    assert capfd.readouterr().err == "", "libjpeg would write a line without the name of the file"
    file.write_bytes(data)
    assert FrameFolder(file.parents[1]).read("a", [0]).shape == (1, 48, 64, 3)


def test_bytes_after_the_end_marker_are_no_damage(make_video: MakeVideo) -> None:
    file = make_video("a", 1) / "00001.jpg"
    data = file.read_bytes()
    expected = FrameFolder(file.parents[1]).read("a", [0])
    for more in (b"\xff\xda\x00\x08 a scan, as of a second picture", data[:-9], b"\0" * 5000):
        file.write_bytes(data + more)
        assert np.array_equal(FrameFolder(file.parents[1]).read("a", [0]), expected)
    file.write_bytes(data[: len(data) // 2] + data)  # cut in its scan, and another picture behind it
    with pytest.raises(DataError, match="is broken"):
        FrameFolder(file.parents[1]).read("a", [0])


def test_a_damaged_png_is_found(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    data = cv2.imencode(".png", pixels)[1].tobytes()
    file, frames = tmp_path / "00001.jpg", FrameFolder(tmp_path)
    for damaged, reason in (
        (data[:900], "the file ends before the picture does"),
        (data[:900] + bytes(3) + data[903:], "the checksum of its chunk IDAT is wrong"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=f"is broken: {reason}"):
            frames.read(".", [0])
    file.write_bytes(data + b"more")
    assert np.array_equal(frames.read(".", [0])[0], pixels[..., ::-1])


def test_what_others_write_to_stderr_meanwhile_is_passed_on(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    decode = cv2.imdecode

    def decode_and_speak(*arguments: Any) -> Any:
        os.write(2, b"a line of another thread\n")
        return decode(*arguments)

    monkeypatch.setattr(cv2, "imdecode", decode_and_speak)
    assert FrameFolder(make_video("a", 2).parent).read("a", [0, 1]).shape[0] == 2
    assert capfd.readouterr().err == 2 * "a line of another thread\n"


def test_a_picture_of_too_many_pixels_is_not_decoded(make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make_video("a", 17) / "00001.jpg"
    frames = FrameFolder(file.parents[1])
    header = b"IHDR" + (20000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunks = [header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND"]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks
    )
    jpeg = bytearray(file.read_bytes())
    size = jpeg.index(b"\xff\xc0") + 5
    jpeg[size : size + 4] = (20000).to_bytes(2, "big") * 2
    for data in (png, bytes(jpeg)):
        whole = file.read_bytes()
        file.write_bytes(data)
        with mock.patch.object(cv2, "imdecode", side_effect=AssertionError("too late")):
            with pytest.raises(DataError, match=re.escape(f"{file} has 20000x20000 pixels, more than the 33554432")):
                frames.read("a", [0])
        file.write_bytes(whole)
    monkeypatch.setenv("SIFA_MAX_FRAME_PIXELS", str(48 * 64))
    assert len(frames.read("a", range(16))) == 16
    with pytest.raises(DataError, match="a clip of 17 frames of 64x48 has more than the 49152 pixels"):
        frames.read("a", range(17))
    monkeypatch.setenv("SIFA_MAX_FRAME_PIXELS", str(48 * 64 - 1))
    with pytest.raises(DataError, match="has 64x48 pixels, more than the 3071 that SIFA_MAX_FRAME_PIXELS allows"):
        frames.read("a", [0])
    monkeypatch.setenv("SIFA_MAX_FRAME_PIXELS", "8K")
    with pytest.raises(DataError, match="SIFA_MAX_FRAME_PIXELS must be a whole number of at least 1, got '8K'"):
        frames.read("a", [0])


def test_a_pipe_is_no_frame(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "00001.jpg")
    (tmp_path / "00002.jpg").mkdir()
    for position, reason in enumerate(("must be a regular file, it is a pipe", "cannot be read: Is a directory")):
        with pytest.raises(DataError, match=re.escape(f"the frame {tmp_path}/0000{position + 1}.jpg {reason}")):
            FrameFolder(tmp_path).read(".", [position])


def test_a_name_that_no_system_takes_is_that_of_a_missing_video(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        FrameFolder(tmp_path).count("a" * 300)
