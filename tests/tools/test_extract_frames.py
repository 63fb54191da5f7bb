"""The command end to end: frames, list and classes; broken videos, wrong arguments."""

import subprocess
import sys
from pathlib import Path

import pytest

from datasets import FrameFolder, read_classes, read_list
from datasets.preparation.writers import PackedWriter
from tests.datasets.preparation.videos import make_video
from tools import extract_frames

ROOT = Path(__file__).resolve().parents[2]


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
    first, second = (FrameFolder(tmp_path / "frames").read(video.path, range(video.num_frames)) for video in videos)
    assert (first.shape, second.shape) == ((6, 24, 32, 3), (4, 48, 24, 3))
    for clip in (first, second):
        greys = clip[:, clip.shape[1] // 2 :].mean(axis=(1, 2, 3))
        assert greys.tolist() == pytest.approx([10 * index + 20 for index in range(len(clip))], abs=4.5)


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
    lines = [line.strip() for line in capfd.readouterr().err.splitlines() if line.strip() and "video/s" not in line]
    assert sorted(lines) == [
        "'x/two\\nlines.mp4': the path must be one line of UTF-8 text without NUL or blanks around it, "
        "got 'x/two\\nlines.mp4'",
        "4 of 5 videos skipped",
        "x/cut.mp4: no frame of it can be decoded",
        "x/empty.mp4: the file is empty",
        "x/text.mp4: no frame of it can be decoded",
    ]
    assert sorted(path.name for path in (tmp_path / "frames/x").iterdir()) == ["good"]


def test_nothing_usable_writes_no_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos/x").mkdir(parents=True)
    (tmp_path / "videos/x/empty.mp4").touch()
    assert run(tmp_path) == 1
    assert not (tmp_path / "lists/train.txt").exists()
    assert "1 of 1 videos skipped; none is left" in capsys.readouterr().err


@pytest.mark.parametrize("first", ["FRAME", "LMDB", "PACKED", "SHARDS", "VIDEO"])
@pytest.mark.parametrize("second", ["FRAME", "PACKED"])
def test_formats_are_not_mixed(first: str, second: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 2)
    assert run(tmp_path, f"--format={first}") == 0
    make_video(tmp_path / "videos/x/b.mp4", 2)
    before = sorted((tmp_path / "frames").rglob("*"))
    capsys.readouterr()
    if first == second:
        assert run(tmp_path, f"--format={second}") == 0
        return
    assert run(tmp_path, f"--format={second}") == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path / 'frames'} holds frames as {first}, not as {second}: give another OUT_DIR\n"
    )
    assert sorted((tmp_path / "frames").rglob("*")) == before


def test_two_runs_do_not_pack_into_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 2)
    other = PackedWriter(tmp_path / "frames", 10**9)
    assert run(tmp_path, "--format=PACKED") == 2
    assert f"another process is writing to the packed frames in {tmp_path / 'frames'}" in capsys.readouterr().err
    other.close()
    assert run(tmp_path, "--format=PACKED") == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fps=5", "--num_frames=3"], "--fps and --num_frames exclude each other"),
        (["--fps=5", "--format=VIDEO"], "--fps and --num_frames need frames: VIDEO reads the files as they are"),
        (["--fps=-1"], "--fps must be in 0..1000, got -1.0"),
        (["--short_side=-1"], "--short_side must be in 0..65535, got -1"),
        (["--quality=0"], "--quality must be in 1..100, got 0"),
        (["--workers=0"], "--workers must be in 1..4096, got 0"),
        (["--where=scene=1"], "--where selects rows of --labels, which is not given"),
        (["--labels=nowhere.csv"], "there is no file nowhere.csv with labels, neither in the working folder nor in "),
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
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_no_folder_and_an_empty_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path) == 2
    assert f"VIDEO_DIR must be a folder, {tmp_path / 'videos'} is none" in capsys.readouterr().err
    (tmp_path / "videos").mkdir()
    assert run(tmp_path) == 2
    assert "there is no video in the sub-folders of" in capsys.readouterr().err


def test_the_parent_of_the_splits_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "Val"):
        (tmp_path / "videos" / split / "walk").mkdir(parents=True)
        (tmp_path / "videos" / split / "walk/a.mp4").touch()
    assert run(tmp_path) == 2
    assert capsys.readouterr().err == (
        f"error: the sub-folders of {tmp_path / 'videos'} must be classes, they are Val, train: extract each of them, "
        "with the same --classes and an OUT_DIR of its own\n"
    )
    assert not (tmp_path / "frames").exists()


def test_runs_as_a_file_from_anywhere(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 2)
    command = [sys.executable, str(ROOT / "tools/extract_frames.py"), "videos", "frames", "--list", "list.txt"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "list.txt: 1 videos, 2 frames, 1 classes\n"), result.stderr
    assert (tmp_path / "list.txt").read_text() == "x/a 2 0\n"
