"""Extraction of whole folders: formats, what is not done twice, broken videos, interrupted runs, the report."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import pytest

from common.errors import DataError
from datasets import FrameFolder, ReaderOptions, open_reader, read_list
from datasets.lmdb_frames import PackedFrames, close_environments
from datasets.preparation import batch_extraction, extraction
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from datasets.preparation.extraction import extract_video
from datasets.preparation.records import ExtractionJob
from datasets.preparation.writers import RECORD_FILE, PackedWriter
from datasets.shards import ShardedVideos
from tests.datasets.preparation.videos import make_video

ROOT = Path(__file__).resolve().parents[3]


def options(folder: Path, **changes: Any) -> ExtractionOptions:
    files = {"video_dir": folder / "videos", "out_dir": folder / "frames", "list_file": folder / "lists/train.txt"}
    return ExtractionOptions(**{**files, "workers": 2, **changes})


def run(folder: Path, **changes: Any) -> int:
    """Returns the number of videos that were skipped."""
    summary = extract_dataset(options(folder, **changes))
    assert not summary.usable or summary.usable == len(list_lines(folder))
    return summary.wanted - summary.usable


def list_lines(folder: Path) -> list[str]:
    return (folder / "lists/train.txt").read_text(encoding="utf-8").splitlines()


def test_smaller_videos_and_size_0_keep_their_size(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/a/small.mp4", 1)
    for short_side in (100, 0):
        assert run(tmp_path, short_side=short_side, out_dir=tmp_path / f"{short_side}") == 0
        assert FrameFolder(tmp_path / f"{short_side}").read("a/small", [0]).shape == (1, 48, 64, 3)


def test_rotation_in_the_metadata_is_applied(tmp_path: Path) -> None:
    video = make_video(tmp_path / "videos/a/turned.mp4", 2)
    data = bytearray(video.read_bytes())
    matrix = data.index(b"tkhd") + 44  # of the track header, version 0: nine 32-bit numbers
    quarter_turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in quarter_turn)
    video.write_bytes(data)
    assert run(tmp_path) == 0
    frame = FrameFolder(tmp_path / "frames").read("a/turned", [0])[0]
    assert frame.shape == (64, 48, 3)
    assert frame[:, -10:].mean() > 200 > 100 > frame[:, :30].mean(), "the bar must be on the right now"


def test_a_truncated_video_counts_what_decodes_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = make_video(tmp_path / "videos/x/cut.avi", 20, codec="MJPG")
    video.write_bytes(video.read_bytes()[: video.stat().st_size * 8 // 10])
    assert run(tmp_path) == 0
    frames = read_list(tmp_path / "lists/train.txt", num_classes=1)[0].num_frames
    assert 5 <= frames <= 17
    assert len(list((tmp_path / "frames/x/cut").glob("*.jpg"))) == frames
    said = f"x/cut.avi: only {frames} of 20 announced frames can be decoded; it is kept with {frames}\n"
    assert said in capsys.readouterr().err


def test_videos_that_differ_in_the_extension_keep_apart(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 2)
    make_video(tmp_path / "videos/x/a.avi", 3, codec="MJPG")
    assert run(tmp_path) == 0
    assert list_lines(tmp_path) == ["x/a.avi 3 0", "x/a.mp4 2 0"]


def test_what_is_complete_is_not_decoded_again(tmp_path: Path) -> None:
    video = make_video(tmp_path / "videos/x/a.mp4", 2)
    frame = tmp_path / "frames/x/a/00001.jpg"

    def decoded_again() -> bool:
        before = frame.stat().st_ino, frame.stat().st_mtime_ns
        assert run(tmp_path) == 0
        return (frame.stat().st_ino, frame.stat().st_mtime_ns) != before

    assert run(tmp_path) == 0
    assert not decoded_again()
    make_video(video, 3)
    assert decoded_again(), "the video has changed"
    assert list_lines(tmp_path) == ["x/a 3 0"]
    (tmp_path / "frames/x/a/00003.jpg").unlink()
    assert decoded_again(), "frames are missing"


def test_a_gap_in_the_frames_or_a_cut_store_is_not_taken_for_done(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 4)
    for format, file in (("FRAME", "00002.jpg"), ("LMDB", "data.mdb")):
        out_dir = tmp_path / format
        assert run(tmp_path, format=format, out_dir=out_dir) == 0
        whole = (out_dir / "x/a" / file).read_bytes()
        if format == "FRAME":
            (out_dir / "x/a" / file).unlink()
        else:
            (out_dir / "x/a" / file).write_bytes(whole[:-5000])
        assert run(tmp_path, format=format, out_dir=out_dir) == 0
        assert len((out_dir / "x/a" / file).read_bytes()) == len(whole)


STORED: list[Any] = ["FRAME", "LMDB", "PACKED", "SHARDS", "VIDEO"]


def stored(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("format", STORED)
def test_frames_of_another_source_are_never_replaced(tmp_path: Path, format: Any) -> None:
    for split, frames in (("train", 3), ("val", 2)):
        make_video(tmp_path / split / "x/a.mp4", frames)
        make_video(tmp_path / split / "x/b.mp4", frames)
    assert run(tmp_path, format=format, video_dir=tmp_path / "train") == 0
    before = stored(tmp_path / "frames"), list_lines(tmp_path)
    files = {"list_file": tmp_path / "val.txt", "classes_file": tmp_path / "new/classes.txt"}
    with pytest.raises(DataError) as caught:
        run(tmp_path, format=format, video_dir=tmp_path / "val", **files)
    message = str(caught.value)
    places = {"VIDEO": "frames/x/a.mp4", "PACKED": "frames, video x/a", "SHARDS": "frames, video x/a"}
    place = places.get(format, "frames/x/a")
    assert message == (
        f"{tmp_path}/{place}: the frames there are of {tmp_path / 'train/x/a.mp4'}, this command reads "
        f"{tmp_path / 'val/x/a.mp4'} (2 videos of 2 clash): give another OUT_DIR, or remove {tmp_path / 'frames'}"
    )
    assert (stored(tmp_path / "frames"), list_lines(tmp_path)) == before
    assert not (tmp_path / "val.txt").exists()
    assert not (tmp_path / "new/classes.txt").exists()


@pytest.mark.parametrize("format", ["FRAME", "LMDB", "PACKED", "SHARDS"])
def test_frames_with_other_settings_are_never_replaced(tmp_path: Path, format: Any) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 10)
    assert run(tmp_path, format=format) == 0
    before = stored(tmp_path / "frames")
    for settings in ({"short_side": 24}, {"quality": 80}, {"fps": 5}, {"num_frames": 4}):
        with pytest.raises(DataError) as caught:
            run(tmp_path, format=format, **settings)
        (name, value), message = settings.popitem(), str(caught.value)
        there, _, wanted = message.partition("this command has ")
        assert "--short_side 256, --quality 95" in there
        assert f"--{name} {value}" in wanted
        assert message.endswith(f": give another OUT_DIR, or remove {tmp_path / 'frames'}")
    assert stored(tmp_path / "frames") == before


@pytest.mark.parametrize("format", ["FRAME", "LMDB", "PACKED", "VIDEO"])  # SHARDS always had the path
def test_records_without_a_path_count_if_the_file_is_the_same(tmp_path: Path, format: Any) -> None:
    """As versions before the path was recorded wrote them."""
    video = make_video(tmp_path / "videos/x/a.mp4", 3)
    assert run(tmp_path, format="LMDB" if format == "PACKED" else format) == 0
    (file,) = (tmp_path / "frames").rglob(RECORD_FILE)
    record = json.loads(file.read_text())
    assert record["path"] == str(video)
    assert (record["bytes"], record["modified"]) == (video.stat().st_size, video.stat().st_mtime_ns)
    del record["path"]
    if format == "PACKED":
        record["format"] = "PACKED"
        file.write_text(json.dumps(record))
        pack = PackedWriter(tmp_path / "frames", 10**9)
        pack.add("x/a", file.parent)
        pack.close()
        file.parent.parent.rmdir()
    else:
        file.write_text(json.dumps(record))
    before = stored(tmp_path / "frames")
    assert run(tmp_path, format=format) == 0
    assert stored(tmp_path / "frames") == before
    make_video(video, 4)
    with pytest.raises(DataError, match=r"the frames there are of another file 'a.mp4' of .* bytes, or of an earlier"):
        run(tmp_path, format=format)
    assert stored(tmp_path / "frames") == before


def test_two_commands_at_once_do_not_replace_the_frames_of_each_other(tmp_path: Path) -> None:
    first, second = (make_video(tmp_path / name / "a.mp4", 2) for name in ("one", "two"))
    assert extract_video(ExtractionJob(first, tmp_path / "a", 256, 95)) == (2, "")
    frames, problem = extract_video(ExtractionJob(second, tmp_path / "a", 256, 95))
    assert (frames, problem) == (
        0,
        f"{tmp_path / 'a'} is taken: the frames there are of {first}, this command reads {second}",
    )


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
from datasets.preparation import extraction
from datasets.preparation.records import ExtractionJob
encode, calls = cv2.imencode, []
def encode_five(*arguments):
    calls.append(1)
    if len(calls) > 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(*arguments)
cv2.imencode = encode_five
extraction.extract_video(ExtractionJob(Path({str(video)!r}), Path({str(folder)!r}), 256, 95))
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
    decode: Callable[..., tuple[int, int, int]] = extraction._write_frames

    def crash(job: ExtractionJob, folder: Path) -> tuple[int, int, int]:
        if job.video.name == "c.mp4":
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(job, folder)

    monkeypatch.setattr(extraction, "_write_frames", crash)
    assert run(tmp_path) == 1
    assert list_lines(tmp_path) == [f"x/{name} 2 0" for name in "abde"]
    assert "x/c.mp4: the decoder crashed on it, or was killed" in capsys.readouterr().err


def clips(folder: Path, format: Any, template: str = "") -> list[np.ndarray]:
    reader = open_reader(format, folder / "frames", ReaderOptions(frame_template=template))
    videos = read_list(folder / "lists/train.txt", num_classes=9)
    return [reader.read(video.path, range(video.num_frames)) for video in videos]


@pytest.mark.parametrize("format", ["LMDB", "PACKED", "SHARDS", "VIDEO"])
def test_every_format_holds_the_frames_of_folders(tmp_path: Path, format: str) -> None:
    make_video(tmp_path / "videos/run fast/č 鳥.mp4", 6)
    make_video(tmp_path / "videos/sit/b.avi", 4, codec="MJPG")
    assert run(tmp_path) == 0
    expected, lines = clips(tmp_path, "FRAME"), list_lines(tmp_path)
    shutil.rmtree(tmp_path / "frames")
    for _ in range(2):  # the second run finds everything done
        assert run(tmp_path, format=format) == 0
        if format == "VIDEO":
            assert list_lines(tmp_path) == ["run fast/č 鳥.mp4 6 0", "sit/b.avi 4 1"]
            continue
        assert list_lines(tmp_path) == lines
        assert all(np.array_equal(a, b) for a, b in zip(clips(tmp_path, format), expected, strict=True))
        close_environments()  # the next run writes


def test_packed_files_are_few_and_change_video_by_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        make_video(tmp_path / f"videos/x/{name}.mp4", 3)
    assert run(tmp_path, format="PACKED", workers=1) == 0
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["00000.lmdb"]
    before = clips(tmp_path, "PACKED")
    close_environments()
    make_video(tmp_path / "videos/x/b.mp4", 2)
    make_video(tmp_path / "videos/x/d.mp4", 4)
    decoded = tmp_path / "decoded"  # by the workers, which are processes of their own
    decode = extraction._write_frames

    def note(job: ExtractionJob, folder: Path) -> tuple[int, int, int]:
        with open(decoded, "a") as stream:
            stream.write(job.video.name + "\n")
        return decode(job, folder)

    if multiprocessing.get_all_start_methods()[0] == "fork":
        monkeypatch.setattr(extraction, "_write_frames", note)
    assert run(tmp_path, format="PACKED", workers=1, shard_gb=0.00001) == 0
    assert not decoded.exists() or sorted(decoded.read_text().split()) == ["b.mp4", "d.mp4"]
    assert list_lines(tmp_path) == ["x/a 3 0", "x/b 2 0", "x/c 3 0", "x/d 4 0"]
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [f"0000{i}.lmdb" for i in range(3)]
    after = clips(tmp_path, "PACKED")
    assert np.array_equal(after[0], before[0])
    assert np.array_equal(after[2], before[2])
    assert PackedFrames(tmp_path / "frames").count("x/b") == 2, "the third frame of the old video is gone"
    close_environments()


def test_a_killed_packing_run_is_continued(tmp_path: Path) -> None:
    for name in "abcd":
        make_video(tmp_path / f"videos/x/{name}.mp4", 3)
    program = f"""
import os, signal
from datasets.preparation import writers
from datasets.preparation.batch_extraction import extract_dataset
from tests.datasets.preparation.test_batch_extraction import options
from pathlib import Path
put, calls = writers._key, []
def put_until(path, name):
    calls.append(name)
    if calls.count("000002.jpg") > 1:  # amid the frames of the second video
        os.kill(os.getpid(), signal.SIGKILL)
    return put(path, name)
writers._key = put_until
extract_dataset(options(Path({str(tmp_path)!r}), format="PACKED", workers=1))
"""
    code = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True).returncode
    assert code == -signal.SIGKILL
    pack = PackedFrames(tmp_path / "frames")
    there = [name for name in "abcd" if (pack.root / "00000.lmdb").exists() and _count(pack, f"x/{name}")]
    assert len(there) == 1, "one video as a whole, none in part"
    close_environments()
    assert run(tmp_path, format="PACKED") == 0
    assert list_lines(tmp_path) == [f"x/{name} 3 0" for name in "abcd"]
    assert [_count(pack, f"x/{name}") for name in "abcd"] == [3] * 4
    assert [path.name for path in (tmp_path / "frames").iterdir()] == ["00000.lmdb"]
    close_environments()


def test_shards_hold_a_mixture_of_the_classes_and_do_not_change(tmp_path: Path) -> None:
    extract = mock.Mock(wraps=batch_extraction.extract_in_processes)
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/3"):
        make_video(tmp_path / f"videos/{name}.mp4", 3)
    shard_gb = 1e-9 * 2 * 3 * 700  # of two videos
    with mock.patch.object(batch_extraction, "extract_in_processes", extract):
        assert run(tmp_path, format="SHARDS", workers=1, shard_gb=shard_gb) == 0
    order = "".join(path[0] for path in extract.call_args.args[0])
    assert sorted(order) == [*"aaabbb"]
    assert order not in ("aaabbb", "bbbaaa")
    files = stored(tmp_path / "frames")
    assert sorted(files) == ["00000.tar", "00001.tar", "00002.tar", "index.json", "records.jsonl"]

    make_video(tmp_path / "videos/b/1.mp4", 2)
    assert run(tmp_path, format="SHARDS", workers=1, shard_gb=shard_gb) == 0
    assert list_lines(tmp_path) == ["a/1 3 0", "a/2 3 0", "a/3 3 0", "b/1 2 1", "b/2 3 1", "b/3 3 1"]
    after = stored(tmp_path / "frames")
    assert {name: after[name] for name in files if name.endswith(".tar")} == {
        name: data for name, data in files.items() if name.endswith(".tar")
    }
    reader = ShardedVideos(tmp_path / "frames")
    assert list(reader.shards[3].videos.items()) == [("b/1", 2)]
    assert reader.count("b/1") == 2


def test_video_files_go_into_shards_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_video(tmp_path / "videos/a/č 1.mp4", 6)
    cut = make_video(tmp_path / "videos/b/2.avi", 20, codec="MJPG")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 8 // 10])
    (tmp_path / "videos/b/frames").mkdir()
    for _ in range(2):  # the second run finds everything done
        assert run(tmp_path, format="SHARDS", keep_videos=True) == 0
    lines = list_lines(tmp_path)
    assert "only" in capsys.readouterr().err
    (shard,) = ShardedVideos(tmp_path / "frames").shards
    assert {f"{path} {frames}" for path, frames in shard.videos.items()} == {line[:-2] for line in lines}
    shards, files = open_reader("SHARDS", tmp_path / "frames"), open_reader("VIDEO", tmp_path / "videos")
    for video in read_list(tmp_path / "lists/train.txt", num_classes=2):
        positions = [video.num_frames - 1, 0, 1, 1]
        assert np.array_equal(shards.read(video.path, positions), files.read(video.path, positions))
        assert shards.fingerprint(video.path, 0) == (tmp_path / "videos" / video.path).read_bytes()
    number = read_list(tmp_path / "lists/train.txt", num_classes=2)[1].num_frames
    with pytest.raises(DataError, match=f"b/2.avi/{number + 1:05d}.jpg' of .*00000.tar is missing: the video has"):
        shards.read("b/2.avi", [number])
    with pytest.raises(DataError, match="frames holds shards of videos, not of frames: give another OUT_DIR"):
        run(tmp_path, format="SHARDS")


def test_a_killed_run_of_shards_is_continued(tmp_path: Path) -> None:
    """Killed after a shard, before its index: its videos wait in their folders, and are not decoded again."""
    for name in "abc":
        make_video(tmp_path / f"videos/x/{name}.mp4", 3)
    program = f"""
import os, signal
from datasets.preparation import shard_writer
from datasets.preparation.batch_extraction import extract_dataset
from tests.datasets.preparation.test_batch_extraction import options
from pathlib import Path
write, calls = shard_writer.write_text, []
def write_until(file, text):
    calls.append(file)
    if len(calls) == 2:  # the index of the second shard
        os.kill(os.getpid(), signal.SIGKILL)
    write(file, text)
shard_writer.write_text = write_until
extract_dataset(options(Path({str(tmp_path)!r}), format="SHARDS", workers=1, shard_gb=0))
"""
    code = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False, capture_output=True).returncode
    assert code == -signal.SIGKILL
    (first,) = ShardedVideos(tmp_path / "frames").shards
    assert run(tmp_path, format="SHARDS", min_frames=1) == 0
    assert list_lines(tmp_path) == [f"x/{name} 3 0" for name in "abc"]
    reader = ShardedVideos(tmp_path / "frames")
    assert reader.shards[0] == first
    assert [len(shard.videos) for shard in reader.shards] == [1, 2]
    assert all(frames.shape == (3, 48, 64, 3) for frames in clips(tmp_path, "SHARDS"))
    assert not (tmp_path / "frames/.staging").exists()


def _count(pack: PackedFrames, path: str) -> int:
    try:
        return pack.count(path)
    except DataError:
        return 0


def test_a_fixed_rate_or_number_of_frames(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/x/a.mp4", 10)  # at 10 fps
    for options, frames in (
        ({"fps": 5}, [0, 2, 4, 6, 8]),
        ({"num_frames": 2}, [2, 7]),
        ({"short_side": 0}, range(10)),
    ):
        assert run(tmp_path, **options) == 0
        assert list_lines(tmp_path) == [f"x/a {len(frames)} 0"]
        greys = clips(tmp_path, "FRAME")[0][:, 24:].mean(axis=(1, 2, 3))
        assert greys.tolist() == pytest.approx([10 * index + 20 for index in frames], abs=4.5)
        shutil.rmtree(tmp_path / "frames")


def test_the_report_says_what_is_wrong_with_which_video(tmp_path: Path) -> None:
    make_video(tmp_path / "videos/x/good.mp4", 9)
    make_video(tmp_path / "videos/x/short.mp4", 3)
    cut = make_video(tmp_path / "videos/x/cut.avi", 20, codec="MJPG")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 8 // 10])
    (tmp_path / "videos/x/empty.mp4").touch()
    with wave.open(str(tmp_path / "videos/x/sound.mp4"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    labels = tmp_path / "labels.csv"
    names = ("good.mp4", "short.mp4", "cut.avi", "empty.mp4", "sound.mp4", "gone.mp4")
    labels.write_text("path,label\n" + "".join(f"x/{name},=walk\n" for name in names))
    for _ in range(2):  # a second run tells the same, of what it finds done too
        assert run(tmp_path, labels=labels, min_frames=4) == 4
        assert [line.split()[0] for line in list_lines(tmp_path)] == ["x/good", "x/cut"]
        header, *rows = (tmp_path / "lists/train.report.tsv").read_text().splitlines()
        assert header.split("\t") == ["path", "label", "kind", "frames", "reason"]
        frames = list_lines(tmp_path)[1].split()[1]
        kept = "announced frames can be decoded; it is kept with"
        assert sorted(row.split("\t") for row in rows) == [
            ["x/cut.avi", "'=walk", "incomplete", frames, f"only {frames} of 20 {kept} {frames}"],
            ["x/empty.mp4", "'=walk", "unreadable", "0", "the file is empty"],
            ["x/gone.mp4", "'=walk", "missing", "0", "there is no such file"],
            ["x/short.mp4", "'=walk", "too short", "3", "it has 3 frames, --min_frames is 4"],
            ["x/sound.mp4", "'=walk", "unreadable", "0", "no frame of it can be decoded"],
        ]


@pytest.mark.parametrize("format", ["FRAME", "LMDB", "PACKED", "SHARDS"])
def test_frames_given_in_folders_are_counted_or_stored_as_they_are(tmp_path: Path, format: Any) -> None:
    for video, frames in (("7", 3), ("12", 2), ("99", 0)):
        folder = tmp_path / "videos" / video
        folder.mkdir(parents=True)
        for number in range(1, frames + 1):
            picture = np.full((100, 132, 3), 40 * number, dtype=np.uint8)
            (folder / f"{number:05d}.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    labels = tmp_path / "train.csv"
    labels.write_text("12;Putting something\n7;Moving something\n99;Moving something\n5;Moving something\n")
    assert run(tmp_path, labels=labels, format=format) == 2
    assert list_lines(tmp_path) == ["12 2 1", "7 3 0"]
    root = tmp_path / ("videos" if format == "FRAME" else "frames")
    for video in ("12", "7"):
        assert open_reader(format, root).fingerprint(video, 1) == (tmp_path / f"videos/{video}/00002.jpg").read_bytes()
    close_environments()
