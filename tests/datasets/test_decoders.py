"""torchcodec and OpenCV give the same frames of the same file, and what torchcodec may open."""

import pickle
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.errors import DataError
from datasets import ClipDataset, decoders, frame_times, one_pass
from datasets.decoders import InexactError, SeekableVideo, TorchcodecCapture, choose_decoder, describe_decoder
from datasets.frame_times import FrameTimes, KnownTimes
from datasets.readers import ReaderOptions
from datasets.transforms import test_transform
from datasets.video_files import VideoFiles, decode_with_repeats, open_video
from datasets.video_formats import has_time_stamps
from engine.distributed import Process
from engine.samplers import DistributedVideoSampler

FRAMES = 50
_SOURCE = f"testsrc2=size=50x38:rate=25:duration={FRAMES / 25},noise=alls=30:allf=t:all_seed=1"
_X264 = "-c:v libx264 -preset veryfast -pix_fmt yuv420p"
ENCODINGS = {
    "b_frames.mp4": f"{_X264} -bf 3 -g 12",
    "long_distance.mkv": f"{_X264} -bf 2 -g 250",
    "open_gop.mp4": f"{_X264} -bf 3 -g 10 -x264opts open-gop=1",
    "intra_refresh.mp4": f"{_X264} -bf 0 -g 20 -x264opts intra-refresh=1",
    "variable_rate.mp4": rf"-vf select=not(mod(n\,3))+lt(n\,20) -fps_mode vfr {_X264} -bf 2 -g 10",
    "full_range_bt709.mov": "-c:v libx264 -pix_fmt yuvj420p -color_range pc -colorspace bt709 -g 10",
    "hevc.mp4": "-c:v libx265 -x265-params log-level=error -pix_fmt yuv420p -g 20",
    "vp8.webm": "-c:v libvpx -auto-alt-ref 1 -lag-in-frames 8 -b:v 100k -deadline realtime -g 20",
    "vp9.webm": "-c:v libvpx-vp9 -auto-alt-ref 1 -lag-in-frames 8 -b:v 100k -deadline realtime -g 20",
    "ten_bits.mp4": "-c:v libx264 -pix_fmt yuv420p10le -g 10",
    "stream.ts": f"{_X264} -bf 2 -g 10",
    "mpeg4.avi": "-c:v mpeg4 -bf 2 -g 10",
}
COPIES = {  # the same frames in another container
    "rotated.mp4": "-c copy -metadata:s:v rotate=90",
    "cut.mp4": "-ss 0.9 -c copy",
    "cut_off_key_frame.mkv": "-ss 0.9 -c copy -copyinkf",
    "index_first.mp4": "-c copy -movflags +faststart",
}
WINDOW = FrameTimes.window
BY_OPENCV = {"ten_bits.mp4", "stream.ts", "mpeg4.avi"}


@pytest.fixture(scope="session")
def needs_torchcodec() -> None:
    if reason := decoders._torchcodec()[1]:
        pytest.skip(f"torchcodec cannot be used: {reason}")


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, needs_torchcodec: None) -> Callable[[str], Path]:
    """Makes a video once, and skips the test if FFmpeg cannot encode it."""
    folder = tmp_path_factory.mktemp("videos")

    def encode(name: str, arguments: list[str]) -> Path:
        file = folder / name
        if not file.exists():
            if not shutil.which("ffmpeg"):
                pytest.skip("there is no command ffmpeg to encode with")
            done = subprocess.run(
                ["ffmpeg", "-v", "error", "-y", *arguments, str(file)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                file.unlink(missing_ok=True)
                pytest.skip(f"ffmpeg does not encode {name}: {done.stderr.splitlines()[:1]}")
        return file

    def make(name: str) -> Path:
        if name in COPIES:
            before, _, after = COPIES[name].rpartition("-c copy")
            source = encode("b_frames.mp4", ["-f", "lavfi", "-i", _SOURCE, *ENCODINGS["b_frames.mp4"].split()])
            return encode(name, [*before.split(), "-i", str(source), "-c", "copy", *after.split()])
        return encode(name, ["-f", "lavfi", "-i", _SOURCE, *ENCODINGS[name].split()])

    return make


def all_frames(file: Path, decoder: decoders.Decoder) -> list[np.ndarray]:
    frames = []
    with open_video(file, decoder=decoder) as capture:
        while (decoded := capture.read())[0]:
            frames.append(decoded[1])
    return frames


def check_same(file: Path) -> None:
    """Compares all that both decoders give of a file, read from its start and at random places."""
    expected = all_frames(file, "opencv")
    assert len(expected) > 10
    got = all_frames(file, "torchcodec")
    assert len(got) == len(expected)
    assert all((a == b).all() for a, b in zip(got, expected, strict=True))
    reader = VideoFiles(file.parent, decoder="torchcodec", lengths={file.name: len(expected)})
    assert reader.count(file.name) == len(expected)
    positions = np.random.default_rng(0).integers(0, len(expected), (6, 4))
    for clip in [*positions.tolist(), [len(expected) - 1], [0]]:
        wanted = np.stack([expected[position][..., ::-1] for position in clip])
        np.testing.assert_array_equal(reader.read(file.name, clip), wanted, err_msg=f"{file.name}, frames {clip}")


@pytest.mark.parametrize("name", [*ENCODINGS, *COPIES])
def test_both_decoders_give_the_same_frames(videos: Callable[[str], Path], name: str) -> None:
    file = videos(name)
    check_same(file)
    if name in BY_OPENCV:
        with pytest.raises(InexactError):
            SeekableVideo(file)
    else:
        with open_video(file) as capture:
            assert isinstance(capture, TorchcodecCapture), "the comparison would be of OpenCV with itself"


def certain_frames(video: SeekableVideo, positions: Sequence[int]) -> np.ndarray | None:
    """The frames, or None where they are not certain."""
    try:
        return video.read(positions)[0]
    except InexactError:
        return None


@pytest.mark.parametrize("name", [name for name in [*ENCODINGS, *COPIES] if name not in BY_OPENCV])
def test_known_times_find_the_same_frames(videos: Callable[[str], Path], name: str) -> None:
    """A file whose times are known is not read whole again."""
    file = videos(name)
    whole = SeekableVideo(file)
    expected = whole.read(range(len(whole)))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_times, "_LONG", 10)
        known = KnownTimes()
        known.learn(file, len(whole), whole.core)
    times = pickle.loads(pickle.dumps(known)).get(file)
    assert times is not None
    assert len(times) == len(whole)
    last = len(times) - 1
    for clip in ([0], [last], [last, 3, 3], [20, 9, 14], range(5, 27, 4)):
        frames = [certain_frames(SeekableVideo(file, window=window), clip) for window in (None, times.window(clip))]
        assert (frames[0] is None) == (frames[1] is None)
        if frames[1] is not None:
            np.testing.assert_array_equal(frames[1], expected[list(clip)], err_msg=f"{name}, frames {clip}")
        else:
            assert name in ("open_gop.mp4", "intra_refresh.mp4"), "whose key frames are no places to begin at"


def test_times_are_kept_for_long_files_that_stay_the_same(
    videos: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(shutil.copy(videos("b_frames.mp4"), tmp_path / "v.mp4"))
    reader = VideoFiles(tmp_path, decoder="torchcodec")
    expected = reader.read("v.mp4", [30, 7])
    assert reader._times.get(file) is None, "it is short"
    monkeypatch.setattr(frame_times, "_LONG", FRAMES)
    reader.read("v.mp4", [1])
    assert reader._times.get(file) is not None
    windows = []
    monkeypatch.setattr(FrameTimes, "window", lambda *of: windows.append(of) or WINDOW(*of))  # type: ignore[func-returns-value]
    np.testing.assert_array_equal(reader.read("v.mp4", [30, 7]), expected)
    assert len(windows) == 1
    with pytest.raises(DataError, match=f"v.mp4 ends after {FRAMES} frames, frame {FRAMES} is wanted"):
        reader.read("v.mp4", [FRAMES, 3])
    shutil.copy(videos("variable_rate.mp4"), file)
    other = VideoFiles(file.parent, decoder="opencv").read("v.mp4", [7, 20])
    np.testing.assert_array_equal(reader.read("v.mp4", [7, 20]), other)
    monkeypatch.setattr(frame_times, "_MOST_FRAMES", FRAMES + 1)
    shutil.copy(videos("rotated.mp4"), tmp_path / "w.mp4")
    for name in ("v.mp4", "w.mp4", "w.mp4"):
        reader.read(name, [3])
    assert [Path(path).name for path, *_ in reader._times._times] == ["w.mp4"]


def test_torchcodec_seeks_in_common_files(videos: Callable[[str], Path]) -> None:
    for name in ("b_frames.mp4", "long_distance.mkv", "variable_rate.mp4", "rotated.mp4", "vp9.webm"):
        file = videos(name)
        expected = all_frames(file, "opencv")
        frames, seconds = SeekableVideo(file).read([20, 7, 20])  # would raise if it found other frames
        assert all((frame == expected[i][..., ::-1]).all() for frame, i in zip(frames, [20, 7, 20], strict=True))
        assert seconds[0] == seconds[2] > seconds[1] > 0


@pytest.mark.parametrize("name", ["b_frames.mp4", "variable_rate.mp4", "rotated.mp4", "open_gop.mp4", "stream.ts"])
def test_chosen_frames_are_sought(videos: Callable[[str], Path], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = videos(name)
    reader = VideoFiles(file.parent, decoder="opencv")
    if name in ("b_frames.mp4", "variable_rate.mp4", "rotated.mp4"):
        monkeypatch.setattr(one_pass, "open_video", lambda *_, **__: pytest.fail("from its start"))
    for choose in (lambda count: [count // 2, 3, count // 2], lambda count: [count - 1, 0]):
        frames, count = one_pass.read_chosen(file, choose)
        assert count == reader.count(name)
        np.testing.assert_array_equal(frames, reader.read(name, choose(count)))


def test_chosen_frames_of_a_file_that_is_cut_short(videos: Callable[[str], Path], tmp_path: Path) -> None:
    data = videos("index_first.mp4").read_bytes()
    (tmp_path / "short.mp4").write_bytes(data[: len(data) * 2 // 3])
    frames, count = one_pass.read_chosen(tmp_path / "short.mp4", lambda count: [count - 1, count // 3])
    expected = all_frames(tmp_path / "short.mp4", "opencv")
    assert count == len(expected)
    np.testing.assert_array_equal(frames, [expected[i][..., ::-1] for i in (count - 1, count // 3)])


def test_the_clock_is_the_same(videos: Callable[[str], Path]) -> None:
    for name in ("variable_rate.mp4", "cut.mp4"):
        repeats = []
        for hidden in (False, True):
            with pytest.MonkeyPatch.context() as patch:
                if hidden:
                    patch.setattr(decoders, "_torchcodec", lambda: (None, "hidden"))
                repeats.append([times for _, times in decode_with_repeats(videos(name), fps=10)])
        assert repeats[0] == repeats[1]
        assert len(set(repeats[0])) > 1


def test_a_file_that_is_cut_short_has_the_frames_that_decode(videos: Callable[[str], Path], tmp_path: Path) -> None:
    data = videos("index_first.mp4").read_bytes()
    file = tmp_path / "short.mp4"
    file.write_bytes(data[: len(data) * 2 // 3])  # announces more frames
    check_same(file)
    frames = len(all_frames(file, "opencv"))
    with pytest.raises(DataError, match=f"short.mp4 ends after {frames} frames, frame {FRAMES + 9} is wanted"):
        VideoFiles(tmp_path, decoder="torchcodec").read(file.name, [0, FRAMES + 9])


def test_damage_changes_no_other_frame(videos: Callable[[str], Path], tmp_path: Path) -> None:
    """What a decoder makes of the damaged frames themselves is its own affair: no standard says it."""
    data = videos("b_frames.mp4").read_bytes()
    start, file = len(data) // 2, tmp_path / "damaged.mp4"
    file.write_bytes(data[:start] + bytes(100) + data[start + 100 :])
    expected, got = (all_frames(file, decoder) for decoder in ("opencv", "torchcodec"))
    assert len(got) == len(expected)
    differ = [i for i, (a, b) in enumerate(zip(got, expected, strict=True)) if (a != b).any()]
    assert not differ or differ[-1] - differ[0] < 12, differ
    reader = VideoFiles(tmp_path, decoder="torchcodec", lengths={file.name: len(expected)})
    np.testing.assert_array_equal(reader.read(file.name, [9, 2]), [expected[i][..., ::-1] for i in (9, 2)])


def test_a_file_with_another_number_of_frames_is_read_from_its_start(
    videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = videos("b_frames.mp4")
    expected = VideoFiles(file.parent, decoder="opencv").read(file.name, [9])
    monkeypatch.setattr(SeekableVideo, "read", lambda *_: pytest.fail("its numbers are those of time stamps"))
    reader = VideoFiles(file.parent, decoder="torchcodec", lengths={file.name: FRAMES - 1})
    np.testing.assert_array_equal(reader.read(file.name, [9]), expected)


def test_any_number_of_processes_validates_on_the_same_views(videos: Callable[[str], Path], tmp_path: Path) -> None:
    """Views of all ranks together: each once, and of the same pixels with either decoder."""
    names = ["b_frames.mp4", "variable_rate.mp4", "vp9.webm", "mpeg4.avi", "cut.mp4"]
    files = [videos(name) for name in names]
    root = files[0].parent
    lengths = [VideoFiles(root).count(name) for name in names]
    lines = (f"{name} {length} {label}\n" for label, (name, length) in enumerate(zip(names, lengths, strict=True)))
    (tmp_path / "list.txt").write_text("".join(lines))
    views = {}
    cases: list[tuple[decoders.Decoder, int]] = [("opencv", 1), ("torchcodec", 1), ("opencv", 2), ("torchcodec", 3)]
    for decoder, world_size in cases:
        data = ClipDataset(
            tmp_path / "list.txt",
            root,
            num_classes=5,
            num_segments=1,
            clip_length=4,
            num_steps=2,
            num_clips=2,
            transform=test_transform(32, 0, 1),
            train=False,
            format="VIDEO",
            reader_options=ReaderOptions(decoder=decoder),
        )
        seen = []
        for rank in range(world_size):
            process = Process(rank, world_size, torch.device("cpu"))
            seen += [data[i] for i in DistributedVideoSampler(range(len(data.videos)), data.views, process)]
        assert sorted(index for _, _, index in seen) == list(range(len(data)))
        views[decoder, world_size] = torch.stack([clip for clip, *_ in sorted(seen, key=lambda sample: sample[2])])
    expected = views.pop(("opencv", 1))
    assert all(torch.equal(of_others, expected) for of_others in views.values())


def test_av1_needs_torchcodec(videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODINGS, "av1.mp4", "-vf scale=64:64 -c:v libsvtav1 -preset 12 -g 20")
    file = videos("av1.mp4")
    reader = VideoFiles(file.parent)
    assert reader.count(file.name) == len(all_frames(file, "torchcodec")) == FRAMES
    whole = reader.read(file.name, range(FRAMES))
    np.testing.assert_array_equal(reader.read(file.name, [31, 3]), whole[[31, 3]])
    without = VideoFiles(file.parent, decoder="opencv")
    for use in (lambda: without.count(file.name), lambda: without.read(file.name, [3])):
        with pytest.raises(DataError, match="its codec is AV1, for which this OpenCV has no decoder; install torchco"):
            use()


def test_the_limits_hold(videos: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = videos("b_frames.mp4")
    reader = VideoFiles(file.parent, decoder="torchcodec")
    monkeypatch.setenv("SIFA_MAX_FRAME_PIXELS", "1900")
    assert len(reader.read(file.name, range(16))) == 16
    with pytest.raises(DataError, match=r"b_frames.mp4: a clip of 17 frames of 50x38 has more than the 30400 pixels"):
        reader.read(file.name, range(17))
    monkeypatch.setenv("SIFA_MAX_FRAME_PIXELS", "1899")
    for use in (lambda: reader.read(file.name, [1]), lambda: reader.count(file.name)):
        with pytest.raises(DataError, match=r"b_frames.mp4 has 50x38 pixels, more than the 1899"):
            use()


@pytest.mark.parametrize(
    ("start", "may"),
    [
        (b"\0\0\0\x20ftypisom", True),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\1\0", True),
        (b"\x1a\x45\xdf\xa3<?xml?><MPD profiles='urn:mpeg:dash:profile:isoff-live:2011'>\0", False),
        (b"\1ab\2mdat<CompositionPlaylist>\0", False),
        (b"\x1a\x45\xdf\xa3" + b" " * 5000, False),  # a text so far
        (b"RIFF\0\0\0\0AVI ", False),
        (b"G" + bytes(187) + b"G", False),
    ],
)
def test_only_containers_with_time_stamps_that_are_nothing_else(tmp_path: Path, start: bytes, may: bool) -> None:
    (tmp_path / "v.mp4").write_bytes(start)
    assert has_time_stamps(tmp_path / "v.mp4") is may


def test_the_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_torchcodec", lambda: (None, "it is not installed"))
    assert choose_decoder("auto") == choose_decoder("opencv") == "opencv"
    assert describe_decoder("auto", "cpu").endswith("(torchcodec cannot be used: it is not installed)")
    assert "torchcodec" not in describe_decoder("opencv", "cpu")
    for wanted, device in (("torchcodec", "cpu"), ("auto", "cuda")):
        with pytest.raises(DataError, match=r"torchcodec cannot be used, it is not installed: see docs/install.md"):
            choose_decoder(wanted, device)  # type: ignore[arg-type]
    core = SimpleNamespace(get_ffmpeg_library_versions=lambda: {"ffmpeg_version": "7.1"})
    monkeypatch.setattr(decoders, "_torchcodec", lambda: (SimpleNamespace(__version__="0.17", _core=core), ""))
    assert choose_decoder("auto") == choose_decoder("torchcodec") == "torchcodec"
    assert describe_decoder("auto", "cpu") == "torchcodec 0.17 with FFmpeg 7.1"
    with pytest.raises(DataError, match=r"decoder_device cuda goes with dataset\.decoder torchcodec, got opencv"):
        choose_decoder("opencv", "cuda")
    monkeypatch.setattr(decoders.torch.cuda, "is_available", lambda: False)
    with pytest.raises(DataError, match="decoder_device is cuda, and PyTorch finds no GPU"):
        choose_decoder("auto", "cuda")


def test_a_library_that_does_not_load_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("\nCould not load libtorchcodec.\nLikely causes: ...")

    monkeypatch.setattr(decoders.importlib, "import_module", fail)
    assert decoders._torchcodec.__wrapped__() == (None, "it does not load: Could not load libtorchcodec.")
