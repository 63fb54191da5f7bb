"""Extraction end to end: frames, list and classes; broken videos, interrupted runs, wrong arguments."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import FrameFolder, read_classes, read_list
from tools import extract_frames

ROOT = Path(__file__).resolve().parents[2]


def make_video(file: Path, frames: int, size: tuple[int, int] = (64, 48), codec: str = "mp4v") -> Path:
    """A video of (width, height); frame i is grey 10 * i + 20, with a bright bar along its upper border."""
    file.parent.mkdir(parents=True, exist_ok=True)
    suffix = ".avi" if codec == "MJPG" else ".mp4"  # the writer picks the container by the name
    written = file.with_name(f"written{suffix}")
    writer = cv2.VideoWriter(str(written), cv2.VideoWriter.fourcc(*codec), 10, size)
    for index in range(frames):
        picture = np.full((size[1], size[0], 3), 10 * index + 20, dtype=np.uint8)
        picture[: size[1] // 4] = 250
        writer.write(picture)
    writer.release()
    return written.rename(file)


def run(folder: Path, *options: str) -> int:
    return extract_frames.main(
        [
            str(folder / "videos"),
            str(folder / "frames"),
            "--list",
            str(folder / "lists/train.txt"),
            "--workers=2",
            *options,
        ]
    )


def list_lines(folder: Path) -> list[str]:
    return (folder / "lists/train.txt").read_text(encoding="utf-8").splitlines()


def test_folders_become_frames_a_list_and_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos/run fast/č 鳥.mp4", 6)
    make_video(tmp_path / "videos/sit/deep/b%02d.avi", 4, size=(48, 96), codec="MJPG")
    assert run(tmp_path, "--short_side=24") == 0
    assert list_lines(tmp_path) == ["run fast/č 鳥 6 0", "sit/deep/b%02d 4 1"]
    assert read_classes(tmp_path / "lists/classes.txt") == ["run fast", "sit"]
    assert "2 videos, 10 frames, 2 classes" in capsys.readouterr().out
    videos = read_list(tmp_path / "lists/train.txt", num_classes=2)
    first, second = (
        FrameFolder(tmp_path / "frames").read(video.path, range(video.num_frames)).float() for video in videos
    )
    assert (first.shape, second.shape) == ((6, 3, 24, 32), (4, 3, 48, 24))
    for clip in (first, second):
        greys = clip[:, :, clip.shape[2] // 2 :].mean(dim=(1, 2, 3))
        assert greys.tolist() == pytest.approx([10 * index + 20 for index in range(len(clip))], abs=4.5)


def test_smaller_videos_and_size_0_keep_their_size(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/a/small.mp4", 1)
    for option in ("--short_side=100", "--short_side=0"):
        assert run(tmp_path, option) == 0
        assert FrameFolder(tmp_path / "frames").read("a/small", [0]).shape == (1, 3, 48, 64)


def test_rotation_in_the_metadata_is_applied(tmp_path: Path) -> None:
    video = make_video(tmp_path / "videos/a/turned.mp4", 2)
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track header, version 0: nine 32-bit numbers
    quarter_turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in quarter_turn)
    video.write_bytes(data)
    assert run(tmp_path) == 0
    frame = FrameFolder(tmp_path / "frames").read("a/turned", [0])[0].float()
    assert frame.shape == (3, 64, 48)
    assert frame[:, :, -10:].mean() > 200 > 100 > frame[:, :, :30].mean(), "the bar must be on the right now"


def test_csv_rows_selected_by_a_column_share_their_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        make_video(tmp_path / f"videos/{name}.mp4", 2)
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label,scene\nc.mp4,walk,1\nb.mp4,jump,2\na.mp4,sit,1\ngone.mp4,walk,1\n")
    assert run(tmp_path, f"--labels={labels}", "--where=scene=2") == 0
    assert list_lines(tmp_path) == ["b 2 0"]
    assert run(tmp_path, f"--labels={labels}", "--where=scene!=2") == 1
    assert list_lines(tmp_path) == ["c 2 2", "a 2 1"]
    assert read_classes(tmp_path / "lists/classes.txt") == ["jump", "sit", "walk"]
    assert "gone.mp4: there is no such file" in capsys.readouterr().err


def test_a_row_that_leaves_the_folder_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "outside.mp4", 2)
    make_video(tmp_path / "videos/a.mp4", 2)
    labels = tmp_path / "labels.csv"
    labels.write_text("path,label\n../outside.mp4,x\na.mp4,x\n")
    assert run(tmp_path, f"--labels={labels}") == 1
    assert "../outside.mp4: the path must be relative to the root and without '..'" in capsys.readouterr().err
    assert list_lines(tmp_path) == ["a 2 0"]
    assert not (tmp_path / "outside").exists()


def test_unreadable_videos_are_reported_and_skipped(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos/x"
    make_video(videos / "good.mp4", 3)
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("no video\n" * 100)
    cut = make_video(videos / "cut.mp4", 20)
    cut.write_bytes(cut.read_bytes()[:-200])  # mp4 keeps its index at the end
    make_video(videos / "two\nlines.mp4", 2)
    assert run(tmp_path) == 1
    assert list_lines(tmp_path) == ["x/good 3 0"]
    # FFmpeg is not quiet here, as this process used it before the workers were forked.
    lines = [line for line in capfd.readouterr().err.splitlines() if line.strip() and "video/s" not in line]
    lines = [line.strip() for line in lines if not line.startswith("[")]
    assert sorted(lines) == [
        "'x/two\\nlines.mp4': the path must be one line of UTF-8 text without NUL or blanks around it, "
        "got 'x/two\\nlines.mp4'",
        "extract_frames: 4 of 5 videos skipped",
        "x/cut.mp4: no frame of it can be decoded",
        "x/empty.mp4: the file is empty",
        "x/text.mp4: no frame of it can be decoded",
    ]
    assert sorted(path.name for path in (tmp_path / "frames/x").iterdir()) == ["good"]


def test_a_truncated_video_counts_what_decodes_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "videos/x/cut.avi", 20, codec="MJPG")
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 8 // 10])
    assert run(tmp_path) == 0
    frames = read_list(tmp_path / "lists/train.txt", num_classes=1)[0].num_frames
    assert 5 <= frames <= 17
    assert len(list((tmp_path / "frames/x/cut").glob("*.jpg"))) == frames
    assert f"x/cut.avi: only {frames} of 20 announced frames can be decoded" in capsys.readouterr().err


def test_nothing_usable_writes_no_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos/x").mkdir(parents=True)
    (tmp_path / "videos/x/empty.mp4").touch()
    assert run(tmp_path) == 1
    assert not (tmp_path / "lists/train.txt").exists()
    assert "1 of 1 videos skipped; none is left" in capsys.readouterr().err


def test_videos_that_differ_in_the_extension_keep_apart(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 2)
    make_video(tmp_path / "videos/x/a.avi", 3, codec="MJPG")
    assert run(tmp_path) == 0
    assert list_lines(tmp_path) == ["x/a.avi 3 0", "x/a.mp4 2 0"]


def test_what_is_complete_is_not_decoded_again(tmp_path: Path) -> None:
    video = make_video(tmp_path / "videos/x/a.mp4", 2)
    frame = tmp_path / "frames/x/a/00001.jpg"

    def extracted_anew(*options: str) -> bool:
        before = frame.stat().st_ino, frame.stat().st_mtime_ns
        assert run(tmp_path, *options) == 0
        return (frame.stat().st_ino, frame.stat().st_mtime_ns) != before

    assert run(tmp_path) == 0
    assert not extracted_anew()
    assert extracted_anew("--short_side=24"), "other settings"
    make_video(video, 3)
    assert extracted_anew("--short_side=24"), "another video of this name"
    assert list_lines(tmp_path) == ["x/a 3 0"]
    (tmp_path / "frames/x/a/00003.jpg").unlink()
    assert extracted_anew("--short_side=24"), "frames are missing"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 2)
    other = tmp_path / "frames/x/a/thesis.txt"
    other.parent.mkdir(parents=True)
    other.write_text("years of work")
    assert run(tmp_path) == 1
    assert other.read_text() == "years of work"
    assert "is in the way: it was not made by extract_frames" in capsys.readouterr().err


def test_a_killed_run_leaves_nothing_that_counts_as_done(tmp_path: Path) -> None:
    video = make_video(tmp_path / "videos/x/a.mp4", 9)
    folder = tmp_path / "frames/x/a"
    program = f"""
import os, signal, cv2
from pathlib import Path
from tools import extract_frames
encode, calls = cv2.imencode, []
def encode_five(*arguments):
    calls.append(1)
    if len(calls) > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*arguments)
cv2.imencode = encode_five
extract_frames.extract(extract_frames.Job(Path({str(video)!r}), Path({str(folder)!r}), 256, 95))
"""
    code = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode
    assert code == -signal.SIGKILL
    assert [path.name for path in folder.parent.iterdir()] == [".a.partial"], "five frames were under way"
    assert run(tmp_path) == 0
    assert list_lines(tmp_path) == ["x/a 9 0"]
    assert [path.name for path in folder.parent.iterdir()] == ["a"]


@pytest.mark.skipif(
    multiprocessing.get_all_start_methods()[0] != "fork", reason="the patch reaches forked workers only"
)
def test_a_video_that_kills_the_decoder_is_found_and_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcde":
        make_video(tmp_path / f"videos/x/{name}.mp4", 2)
    decode: Callable[..., tuple[int, int]] = extract_frames._decode

    def crash(job: extract_frames.Job, folder: Path) -> tuple[int, int]:
        if job.video.name == "c.mp4":
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(job, folder)

    monkeypatch.setattr(extract_frames, "_decode", crash)
    assert run(tmp_path) == 1
    assert list_lines(tmp_path) == [f"x/{name} 2 0" for name in "abde"]
    assert "x/c.mp4: the decoder crashed on it, or was killed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--short_side=-1"], "--short_side must be in 0..65535, got -1"),
        (["--quality=0"], "--quality must be in 1..100, got 0"),
        (["--workers=0"], "--workers must be in 1..4096, got 0"),
        (["--where=scene=1"], "--where selects rows of --labels, which is not given"),
        (["--labels=nowhere.csv"], "nowhere.csv: No such file or directory"),
        (["--classes=OTHER"], "lacks the class 'x'"),
        (["--list=FOLDER"], "--list must be a file"),
        (["--list=OTHER/list.txt"], "OTHER"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "videos/x").mkdir(parents=True)
    (tmp_path / "videos/x/a.mp4").touch()
    other = tmp_path / "other"
    other.write_text("y\n")
    names = {"OTHER": str(other), "FOLDER": str(tmp_path)}
    for name, value in names.items():
        options = [option.replace(name, value) for option in options]
        message = message.replace(name, value)
    assert run(tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("extract_frames: ")
    assert error.count("\n") == 1
    assert message in error


def test_no_folder_and_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert f"VIDEO_DIR must be a folder, {tmp_path / 'videos'} is none" in capsys.readouterr().err
    (tmp_path / "videos").mkdir()
    assert run(tmp_path) == 2
    assert "there is no video in the sub-folders of" in capsys.readouterr().err


def test_runs_as_a_file_from_anywhere(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 2)
    command = [sys.executable, str(ROOT / "tools/extract_frames.py"), "videos", "frames", "--list", "list.txt"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "list.txt: 1 videos, 2 frames, 1 classes\n"), result.stderr
    assert (tmp_path / "list.txt").read_text() == "x/a 2 0\n"
