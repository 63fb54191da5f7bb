"""Storages: the same clip from each, what is said of missing and broken frames, processes that share a reader."""

import multiprocessing
import os
import pickle
import random
import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import cv2
import lmdb
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from common.errors import DataError
from datasets import (
    FORMATS,
    ClipDataset,
    ReaderOptions,
    normalise,
    open_reader,
    test_transform,
    train_transform,
    worker_init,
)
from datasets import lmdb_frames as lmdb_module
from datasets.lmdb_frames import KEY_TEMPLATE, LmdbFolders, PackedFrames
from engine.distributed import Process
from engine.eval_loop import score_videos
from engine.prefetch import DevicePrefetcher
from engine.samplers import DistributedVideoSampler
from engine.schema import Dataset
from tests.attacks.child import run
from tests.datasets.shard_files import write_shards

LENGTHS = {"a/one two": 12, "č 鳥": 5}
NUMBERED = ("FRAME", "LMDB", "PACKED")  # formats whose frames have numbers of their own


def pictures(count: int) -> list[np.ndarray]:
    """Smooth colour pictures, all different (H, W) = (40, 56), BGR."""
    y, x = np.mgrid[:40, :56]
    return [
        np.stack([4 * x + 3 * i, 5 * y + 7 * i, 2 * (x + y) + 11 * i], axis=2).clip(0, 255).astype(np.uint8)
        for i in range(count)
    ]


def write_environment(file: Path, frames: dict[str, bytes], subdir: bool = True) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(file), subdir=subdir, map_size=1 << 24, lock=False) as environment:
        with environment.begin(write=True) as transaction:
            for key, data in frames.items():
                transaction.put(key.encode(), data)


@pytest.fixture
def roots(tmp_path: Path) -> Path:
    """The same two videos as FRAME, LMDB, PACKED and SHARDS (PNG) and as VIDEO (a lossless codec), with a list."""
    packed: list[dict[str, bytes]] = []
    stored: dict[str, list[bytes]] = {}
    for path, length in LENGTHS.items():
        video = tmp_path / "VIDEO" / f"{path}.avi"
        video.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(video), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 10, (56, 40))
        for picture in pictures(length):
            writer.write(picture)
        writer.release()
        capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG)
        decoded = [frame for there, frame in iter(capture.read, (False, None)) if there]
        assert len(decoded) == length
        data = [cv2.imencode(".png", frame)[1].tobytes() for frame in decoded]
        folder = tmp_path / "FRAME" / path
        folder.mkdir(parents=True)
        for number, one in enumerate(data, start=1):
            (folder / f"{number:05d}.jpg").write_bytes(one)
        keyed = {KEY_TEMPLATE.format(number): one for number, one in enumerate(data, start=1)}
        write_environment(tmp_path / "LMDB" / path, keyed)
        packed.append({f"{path}/{key}": one for key, one in keyed.items()})
        stored[path] = data
    for number, frames in enumerate(packed):
        write_environment(tmp_path / "PACKED" / f"{number:05d}.lmdb", frames, subdir=False)
    write_shards(tmp_path / "SHARDS", stored)
    lines = [f"{path} {length} {label}\n" for label, (path, length) in enumerate(LENGTHS.items())]
    (tmp_path / "list.txt").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "videos.txt").write_text("".join(lines).replace("two", "two.avi").replace("鳥", "鳥.avi"), "utf-8")
    return tmp_path


def dataset(roots: Path, format: Any, **options: Any) -> ClipDataset:
    sizes = {"num_classes": 2, "num_segments": 1, "clip_length": 4, "num_steps": 2}
    augment: dict[str, Any] = {"transform": train_transform(24), "train": True}
    list_file = roots / ("videos.txt" if format == "VIDEO" else "list.txt")
    return ClipDataset(list_file, roots / format, **(sizes | augment | options), format=format)


def test_the_schema_knows_every_format() -> None:
    assert get_args(Dataset.model_fields["format"].annotation) == FORMATS


@pytest.mark.parametrize("format", ["LMDB", "PACKED", "SHARDS", "VIDEO"])
def test_every_format_gives_the_same_clip(roots: Path, format: Any) -> None:
    frames, other = dataset(roots, "FRAME"), dataset(roots, format)
    for key in ((0, 0), (0, 7), (1, 0)):
        (clip, label, index), (expected, *rest) = other[key], frames[key]
        assert torch.equal(clip, expected)
        assert [label, index] == rest


@pytest.mark.parametrize("format", FORMATS)
def test_one_to_three_processes_validate_alike(roots: Path, format: Any) -> None:
    """The scores of all ranks together are those of one process that reads FRAME, to the bit."""
    assert scores_of_ranks(roots, format, 1) == scores_of_ranks(roots, "FRAME", 1)
    for world_size in (2, 3):  # of two videos: the third has nothing to do
        assert scores_of_ranks(roots, format, world_size) == scores_of_ranks(roots, format, 1)


class OneHead(nn.Module):
    """A fixed linear classifier of clips (N, 3, 4, 24, 24)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(3 * 4 * 24 * 24, 2, generator=torch.Generator().manual_seed(0)) / 100

    def forward(self, clip: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (clip.flatten(1) @ self.weight,)


def scores_of_ranks(roots: Path, format: Any, world_size: int) -> dict[int, list[list[float]]]:
    """The scores (views, classes) of each video, by a fixed network."""
    network = OneHead()
    scores: dict[int, list[list[float]]] = {}

    def keep(video: int, of_views: torch.Tensor, losses: torch.Tensor) -> None:
        assert video not in scores, "each video counts once"
        scores[video] = of_views.tolist()

    for rank in range(world_size):
        data = dataset(roots, format, train=False, transform=test_transform(24, 0, 1), num_clips=2)
        process = Process(rank, world_size, torch.device("cpu"))
        sampler = DistributedVideoSampler(range(len(data.videos)), data.views, process, data.shards)
        batches = DevicePrefetcher(DataLoader(data, batch_size=1, sampler=sampler), process.device, normalise)
        score_videos(network, batches, sampler, data, keep=keep)
    assert sorted(scores) == [0, 1]
    return scores


@pytest.mark.parametrize("format", FORMATS)
def test_order_and_repetition_are_those_asked_for(roots: Path, format: Any) -> None:
    path = "a/one two" + (".avi" if format == "VIDEO" else "")
    clip = open_reader(format, roots / format).read(path, [7, 2, 2, 11, 0])
    expected = np.stack([pictures(12)[i][..., ::-1] for i in (7, 2, 2, 11, 0)])
    # The lossless codec keeps YUV: a few grey levels are lost on the way into it.
    difference = np.abs(clip.astype(int) - expected)
    assert difference.mean() < 3
    assert np.array_equal(clip[1], clip[2])


def test_jpeg_frames_are_near_those_of_the_video(roots: Path) -> None:
    video = open_reader("VIDEO", roots / "VIDEO").read("č 鳥.avi", range(5))
    folder = roots / "jpeg/v"
    folder.mkdir(parents=True)
    for number, frame in enumerate(video):
        data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        (folder / f"{number}.jpg").write_bytes(data.tobytes())
    frames = open_reader("FRAME", roots / "jpeg", ReaderOptions(frame_template="{}.jpg", first_frame=0)).read(
        "v", range(5)
    )
    difference = np.abs(frames.astype(int) - video)
    # Quality 95 rounds by about one grey level on smooth pictures, more where colours are halved.
    assert difference.mean() < 2
    assert difference.max() < 25


@pytest.mark.parametrize("format", FORMATS)
def test_counts_are_what_is_there(roots: Path, format: Any) -> None:
    reader, suffix = open_reader(format, roots / format), ".avi" if format == "VIDEO" else ""
    assert [reader.count(path + suffix) for path in LENGTHS] == [12, 5]
    with pytest.raises(DataError):
        reader.count("nobody")


@pytest.mark.parametrize("format", FORMATS)
def test_equal_frames_have_equal_bytes(roots: Path, format: Any) -> None:
    reader, suffix = open_reader(format, roots / format), ".avi" if format == "VIDEO" else ""
    one, two = (reader.fingerprint(path + suffix, 3) for path in LENGTHS)
    assert one == reader.fingerprint("a/one two" + suffix, 3)
    assert (one == two) == (format != "VIDEO"), "the pictures are the same, the files are not"


@pytest.mark.parametrize(
    ("format", "path", "message"),
    [
        ("LMDB", "nobody", "the LMDB environment ROOT/nobody cannot be opened: No such file or directory"),
        ("LMDB", "č 鳥", "the frame '000006.jpg' of ROOT/č 鳥 is missing"),
        ("PACKED", "nobody", "the video 'nobody' is missing from the packed frames in ROOT"),
        ("PACKED", "x" * 600, "is missing from the packed frames in ROOT"),
        ("PACKED", "č 鳥", "the frame 'č 鳥/000006.jpg' of ROOT/00001.lmdb is missing"),
        ("VIDEO", "nobody.avi", "the video ROOT/nobody.avi is missing"),
        ("VIDEO", "č 鳥.avi", "the video ROOT/č 鳥.avi ends after 5 frames, frame 5 is wanted"),
        ("VIDEO", "empty.avi", "the video ROOT/empty.avi is empty"),
        ("VIDEO", "text.avi", "no frame of the video ROOT/text.avi can be decoded"),
    ],
)
def test_what_is_missing_is_named(roots: Path, format: Any, path: str, message: str) -> None:
    (roots / "VIDEO/empty.avi").touch()
    (roots / "VIDEO/text.avi").write_text("no video")
    root = roots / format
    with pytest.raises(DataError, match=re.escape(message.replace("ROOT", str(root)))):
        open_reader(format, root).read(path, [1, 5])


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_outside_the_root_is_read(roots: Path, format: Any) -> None:
    reader = open_reader(format, roots / format)
    for path in ("../FRAME/a", "/etc/passwd", "a/../../x"):
        for call in (lambda p: reader.read(p, [0]), reader.count, lambda p: reader.fingerprint(p, 0)):
            with pytest.raises(DataError, match=re.escape(f"without '..', got {path!r}")):
                call(path)


def test_a_root_of_another_format_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"the folder {tmp_path} holds no packed frames (*.lmdb)")):
        open_reader("PACKED", tmp_path)
    for format in ("LMDB", "VIDEO"):
        with pytest.raises(DataError, match="does not exist or is no folder"):
            open_reader(format, tmp_path / "no")
    with pytest.raises(ValueError, match="format must be one of FRAME, LMDB, PACKED, SHARDS, VIDEO, got 'TAR'"):
        open_reader("TAR", tmp_path)  # type: ignore[arg-type]
    for format in NUMBERED[1:]:
        with pytest.raises(ValueError, match="the frame template must hold a number"):
            open_reader(format, tmp_path, ReaderOptions(frame_template="a.jpg"))  # type: ignore[arg-type]


def test_broken_values_and_environments_are_named(tmp_path: Path) -> None:
    data = cv2.imencode(".jpg", pictures(1)[0])[1].tobytes()
    write_environment(tmp_path / "v", {"000001.jpg": data[:-5], "000002.jpg": b"", "000003.jpg": b"no picture"})
    reader = LmdbFolders(tmp_path)
    for position, reason in ((0, "the file ends before the picture does"), (1, "does not decode"), (2, "not decode")):
        with pytest.raises(
            DataError, match=re.escape(f"the frame '{KEY_TEMPLATE.format(position + 1)}' of") + f".*{reason}"
        ):
            reader.read("v", [position])
    (tmp_path / "w").mkdir()
    (tmp_path / "w/data.mdb").write_bytes(b"\0" * 9000)
    with pytest.raises(DataError, match=r"the LMDB environment .*w cannot be opened: "):
        reader.read("w", [0])


def test_templates_and_first_frames_reach_the_keys(tmp_path: Path) -> None:
    data = cv2.imencode(".png", pictures(1)[0])[1].tobytes()
    write_environment(tmp_path / "v", {"img0": data, "img1": data})
    write_environment(tmp_path / "s.lmdb", {"v/img0": data, "{}/img0": data}, subdir=False)
    options = ReaderOptions(frame_template="img{}", first_frame=0)
    assert open_reader("LMDB", tmp_path, options).count("v") == 2
    assert open_reader("PACKED", tmp_path, options).count("v") == 1
    assert open_reader("PACKED", tmp_path, options).count("{}") == 1, "braces in a path are no template"


def test_an_environment_is_opened_once_and_few_stay_open(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lmdb_module.close_environments()
    with mock.patch.object(lmdb, "open", wraps=lmdb.open) as opened:
        reader, again = LmdbFolders(roots / "LMDB"), LmdbFolders(roots / "LMDB")
        for _ in range(3):
            reader.read("a/one two", [0])
            again.read("č 鳥", [0])
        assert opened.call_count == 2
        monkeypatch.setattr(lmdb_module, "_MAX_OPEN", 1)
        packed = PackedFrames(roots / "PACKED")
        for path in (*LENGTHS, *LENGTHS):
            assert packed.read(path, [0]).shape == (1, 40, 56, 3), "one closed while it is read"
        assert len(lmdb_module._cache.environments) <= 2


def test_a_replaced_environment_is_opened_again(tmp_path: Path) -> None:
    data = cv2.imencode(".png", pictures(1)[0])[1].tobytes()
    for frames in (2, 3):
        write_environment(tmp_path / "new", {KEY_TEMPLATE.format(i + 1): data for i in range(frames)})
        (tmp_path / "new/data.mdb").rename(tmp_path / "data.mdb.new")
        (tmp_path / "v").mkdir(exist_ok=True)
        (tmp_path / "data.mdb.new").rename(tmp_path / "v/data.mdb")
        assert LmdbFolders(tmp_path).count("v") == frames


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_open_their_own(roots: Path, method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    for format in ("LMDB", "PACKED", "SHARDS") if method == "fork" else ("PACKED",):
        data = dataset(roots, format)
        expected = [data[key][0] for key in ((0, 1), (1, 1))]  # the parent has them open when it forks
        loader: DataLoader[Any] = DataLoader(
            data,
            batch_size=None,
            sampler=[(0, 1), (1, 1)] * 3,
            num_workers=2,
            worker_init_fn=worker_init,
            multiprocessing_context=method,
        )
        for index, (clip, _, _) in enumerate(loader):
            assert torch.equal(clip, expected[index % 2])
        assert torch.equal(data[0, 1][0], expected[0]), "the parent's are still open"


@pytest.mark.parametrize("format", FORMATS)
def test_readers_travel(roots: Path, format: Any) -> None:
    path = "a/one two" + (".avi" if format == "VIDEO" else "")
    reader = open_reader(format, roots / format)
    expected = reader.read(path, [3])
    assert np.array_equal(pickle.loads(pickle.dumps(reader)).read(path, [3]), expected)


def test_memory_and_descriptors_do_not_grow_with_reads(roots: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no /proc here")
    readers = [open_reader(format, roots / format) for format in FORMATS]

    def read() -> int:
        for reader, suffix in zip(readers, ("", "", "", "", ".avi"), strict=True):
            reader.read("č 鳥" + suffix, [0, 4])
        return len(os.listdir("/proc/self/fd"))

    before = read()
    assert [read() for _ in range(5)] == [before] * 5


@pytest.mark.parametrize("format", ["LMDB", "PACKED"])
def test_a_store_that_is_cut_short_is_named(roots: Path, format: Any) -> None:
    """LMDB maps the file: to read a page that is not there would kill the process."""
    file = roots / ("LMDB/č 鳥/data.mdb" if format == "LMDB" else "PACKED/00001.lmdb")
    reader = open_reader(format, roots / format)
    assert reader.read("č 鳥", [4]).shape == (1, 40, 56, 3)
    whole = file.read_bytes()
    for size in (len(whole) - 4096, len(whole) // 2, 8192, 5000, 100, 0):
        os.truncate(file, size)  # of the very file that is open
        with pytest.raises(DataError, match=r"cut short: it has \d+ bytes of \d+|cannot be opened"):
            reader.read("č 鳥", [4])
    file.write_bytes(whole)
    assert reader.count("č 鳥") == 5


def test_a_store_that_lacks_free_pages_at_its_end_is_whole(tmp_path: Path) -> None:
    """LMDB does not write pages that one transaction takes and gives back."""
    short = 0
    generator = np.random.default_rng(0)
    for number in range(20):
        file = tmp_path / f"{number}.lmdb"
        with lmdb.open(str(file), subdir=False, map_size=1 << 24, lock=False) as environment:
            for _ in range(4):
                with environment.begin(write=True) as transaction:
                    for key in generator.integers(0, 40, 40):
                        if generator.random() < 0.5:
                            transaction.delete(f"{key}".encode())
                        else:
                            transaction.put(f"{key}".encode(), bytes(int(generator.choice([10, 3000, 20000]))))
            short += file.stat().st_size < (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        with lmdb_module._read_transaction(file) as transaction:
            sum(len(value) for _, value in transaction.cursor())
    assert short, "no file of the test is short"


def test_damage_in_any_page_of_a_store_ends_in_an_error(tmp_path: Path) -> None:
    """LMDB believes what it reads in the mapped file: a wrong number there would kill the process."""
    draw = random.Random(0)
    stores = []
    for number, (frames, size) in enumerate(((300, 300), (200, 2500), (3, 9000))):
        store = {KEY_TEMPLATE.format(frame): draw.randbytes(size) for frame in range(frames)}
        write_environment(tmp_path / f"{number}.lmdb", store, subdir=False)
        data = (tmp_path / f"{number}.lmdb").read_bytes()
        headers = [struct.unpack_from("=QHH", data, page) for page in range(0, len(data), 4096)]
        of_keys = [page for page, (own, _, flags) in enumerate(headers) if own == page and flags in (1, 2)]
        stores.append((data, of_keys, list(store)))

    def read_damaged_stores() -> int:
        endings = Counter[str]()
        for number in range(300):
            whole, of_keys, keys = draw.choice(stores)
            data = bytearray(whole)
            page = draw.choice((draw.randrange(2), draw.choice(of_keys)))  # of the two headers, and of the keys
            at = 4096 * page + draw.choice((draw.randrange(160), draw.randrange(4088)))
            data[at : at + 2] = draw.choice((draw.randbytes(2), bytes(2), b"\xff\xff"))
            file = tmp_path / f"damaged{number}.lmdb"
            file.write_bytes(data)
            try:
                with lmdb_module._read_transaction(file) as transaction:
                    for key in keys:
                        lmdb_module._read_frame(transaction, key, file).tobytes()
                endings["read"] += 1
            except DataError as error:
                endings["is damaged" if f"{file} is damaged" in str(error) else "refused"] += 1
            file.unlink()
        assert min(endings["read"], endings["is damaged"]) > 20, endings
        return 0

    assert run(read_damaged_stores, tmp_path / "log") == (True, "result", "")  # in a process of its own


def test_a_pipe_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    for name in ("v/data.mdb", "0.lmdb"):
        os.mkfifo(tmp_path / name)
    for reader in (LmdbFolders(tmp_path), PackedFrames(tmp_path)):
        with pytest.raises(DataError, match="must be a regular file, it is a pipe"):
            reader.count("v")


@pytest.mark.parametrize("format", NUMBERED)
def test_frames_outside_the_row_of_numbers_are_told(roots: Path, format: Any) -> None:
    root = roots / format
    reader = open_reader(format, root)
    assert reader.uncounted("č 鳥") == ""
    if format == "FRAME":
        (root / "č 鳥/00002.jpg").unlink()
    else:
        lmdb_module.close_environments()
        file, prefix = (root / "č 鳥", "") if format == "LMDB" else (root / "00001.lmdb", "č 鳥/")
        with lmdb.open(str(file), subdir=format == "LMDB", map_size=1 << 24, lock=False) as environment:
            with environment.begin(write=True) as transaction:
                transaction.delete(f"{prefix}000002.jpg".encode())
    gap = "frame 2 is missing, but frame 3 is there: only the 1 frames before the gap count, 3 do not"
    assert (reader.count("č 鳥"), reader.uncounted("č 鳥")) == (1, gap)
    from_3 = open_reader(format, root, ReaderOptions(first_frame=3))
    assert from_3.count("č 鳥") == 3
    assert "frame 1 is there too, before the first one, 3" in from_3.uncounted("č 鳥")
