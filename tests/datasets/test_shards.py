"""Shards: from a folder and over HTTP, with faults of the network, a bounded cache and processes that share it."""

import multiprocessing
import os
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from datasets import downloads, open_reader
from datasets.clips import ClipDataset
from datasets.shard_index import ShardError
from datasets.shards import ShardedVideos
from tests.datasets.shard_files import noise, write_shards
from tests.datasets.shard_server import ShardServer, serve

VIDEOS = {f"c {i % 2}/v{i}": noise(3, seed=i) for i in range(6)}
SHARDS = 3  # of two videos each

pytest.importorskip("aiohttp", reason="fsspec reads http:// with it")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards", VIDEOS, shard_bytes=2000)


@pytest.fixture
def server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardServer]:
    monkeypatch.setattr(downloads, "_WAITS", (0.01, 0.01))
    with serve(root) as served:
        yield served


def shard_bytes(root: Path) -> int:
    (size,) = {file.stat().st_size for file in root.glob("*.tar")}
    return size


def size_of(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder))


def assert_reads_all(reader: ShardedVideos) -> None:
    for path, pictures in VIDEOS.items():
        assert [reader.fingerprint(path, position) for position in range(3)] == pictures


# ---- The files ----


def test_tar_unpacks_shards_to_frames(root: Path, tmp_path: Path) -> None:
    for file in sorted(root.glob("*.tar")):
        with tarfile.open(file) as archive:
            archive.extractall(tmp_path / "frames", filter="data")
    frames, shards = open_reader("FRAME", tmp_path / "frames"), open_reader("SHARDS", root)
    for path in VIDEOS:
        assert frames.count(path) == shards.count(path) == 3
        assert np.array_equal(frames.read(path, [2, 0]), shards.read(path, [2, 0]))


def test_a_video_that_is_written_again_replaces_the_former_one(root: Path) -> None:
    write_shards(root, {"c 0/v0": noise(5, seed=9)})
    reader = ShardedVideos(root)
    assert (len(reader.shards), reader.count("c 0/v0")) == (SHARDS + 1, 5)
    assert reader.fingerprint("c 0/v0", 4) == noise(5, seed=9)[4]
    assert reader.fingerprint("c 1/v1", 0) == VIDEOS["c 1/v1"][0], "it is in the same shard as the former one"


def test_what_is_missing_or_damaged_is_named(root: Path) -> None:
    reader = ShardedVideos(root)
    file = root / "00000.tar"
    whole = bytearray(file.read_bytes())
    with pytest.raises(DataError, match=re.escape(f"the video 'no' is missing from the shards of {root}")):
        reader.read("no", [0])
    with pytest.raises(DataError, match=re.escape(f"'c 0/v0/00004.jpg' of {file} is missing: the video has 3 frames")):
        reader.read("c 0/v0", [3])

    damaged = whole.copy()
    damaged[whole.index(VIDEOS["c 1/v1"][1]) + 200] ^= 1
    file.write_bytes(damaged)
    assert reader.fingerprint("c 1/v1", 0) == VIDEOS["c 1/v1"][0]
    with pytest.raises(DataError, match=re.escape(f"'c 1/v1/00002.jpg' of {file} is damaged: its checksum is wrong")):
        reader.fingerprint("c 1/v1", 1)
    damaged = whole.copy()
    damaged[reader.shards[0].table] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ShardError, match=re.escape(f"the shard {file} is damaged: the checksum of its table is wrong")):
        ShardedVideos(root).read("c 0/v0", [0])
    file.write_bytes(whole[:-1])
    with pytest.raises(ShardError, match=f"{file} has {len(whole) - 1} bytes, the index says {len(whole)}: copy it ag"):
        reader.read("c 0/v0", [0])
    file.unlink()
    with pytest.raises(ShardError, match=re.escape(f"the shard {file} is missing")):
        reader.read("c 0/v0", [0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": 2', "has version 2, this program reads 1"),
        ("{", "[", "is no index of shards"),
        ('"00000.tar"', '"../00000.tar"', "is no index of shards"),
        ('"bytes"', '"size"', "is no index of shards"),
        ('v0": 3', 'v0": 10000', "is no index of shards"),
        ('v0": 3', 'v0": -3', "is no index of shards"),
        ('v0": 3', 'v0": "3"', "is no index of shards"),
    ],
)
def test_a_wrong_index_is_named(root: Path, old: str, new: str, message: str) -> None:
    index = root / "index.json"
    index.write_text(index.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        ShardedVideos(root)


def test_a_folder_without_index_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"the folder {tmp_path} holds no shards (index.json)")):
        ShardedVideos(tmp_path)


def test_a_missing_shard_is_no_bad_sample(root: Path, tmp_path: Path) -> None:
    """It costs the run, not one video after the other."""
    (tmp_path / "list.txt").write_text("".join(f"{path} 3 0\n" for path in VIDEOS))
    sizes = {"num_classes": 1, "num_segments": 1, "clip_length": 2, "num_steps": 1}
    data = ClipDataset(
        tmp_path / "list.txt",
        root,
        transform=lambda clip: clip,
        train=True,
        format="SHARDS",
        on_bad_sample="replace",
        max_bad_fraction=0.9,
        **sizes,  # type: ignore[arg-type]
    )
    assert data.shards == [0, 0, 1, 1, 2, 2]
    (root / "00001.tar").unlink()
    assert data[0, 0][2] == 0
    with pytest.raises(ShardError, match=r"list.txt:3: the shard .*00001.tar is missing"):
        data[2, 0]


# ---- Over HTTP ----


def test_a_url_gives_what_the_folder_gives(server: ShardServer, tmp_path: Path) -> None:
    for _ in range(2):  # the second one finds all in the cache
        assert_reads_all(ShardedVideos(server.url, tmp_path / "cache"))
    assert server.requests == {"index.json": 2, "00000.tar": 1, "00001.tar": 1, "00002.tar": 1}


def test_faults_of_the_network_are_overcome(server: ShardServer, tmp_path: Path) -> None:
    server.faults = {"index.json": ["500"], "00000.tar": ["cut", "500"], "00001.tar": ["flip"], "00002.tar": ["500"]}
    assert_reads_all(ShardedVideos(server.url, tmp_path / "cache"))
    assert server.requests == {"index.json": 2, "00000.tar": 3, "00001.tar": 2, "00002.tar": 2}
    assert {file.suffix for file in (tmp_path / "cache").iterdir()} == {".tar", ".lock"}
    assert [file.name for file in (tmp_path / "cache").glob("*.lock")] == ["all.lock"]


def test_a_slow_server_is_waited_for_a_silent_one_is_not(
    server: ShardServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for a pause between two bytes, not for the whole of a large shard."""
    monkeypatch.setattr(downloads, "_SILENCE", 1)
    server.pause = 0.15  # ten of them are longer than the limit
    server.faults = {"00000.tar": ["slow"], "00001.tar": ["silent"]}
    assert_reads_all(ShardedVideos(server.url, tmp_path / "cache"))
    assert server.requests == {"index.json": 1, "00000.tar": 1, "00001.tar": 2, "00002.tar": 1}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("500", "cannot be read: ClientResponseError 500.*, also in attempt 3"),
        ("cut", "cannot be read: .*, also in attempt 3"),
        ("flip", r"is damaged: its SHA-256 is .*\.\.\., the index says .*\.\.\., also in attempt 3"),
    ],
)
def test_lasting_faults_are_named(server: ShardServer, tmp_path: Path, fault: str, message: str) -> None:
    reader = ShardedVideos(server.url, tmp_path / "cache")
    server.faults = {"00001.tar": [fault] * 3}
    with pytest.raises(ShardError, match=f"{server.url}/00001.tar {message}"):
        reader.read("c 0/v2", [0])
    assert not list((tmp_path / "cache").glob("*.part"))
    assert reader.fingerprint("c 0/v2", 0) == VIDEOS["c 0/v2"][0], "when the fault is over"


def test_what_a_server_lacks_is_named_at_once(server: ShardServer, tmp_path: Path) -> None:
    reader = ShardedVideos(server.url, tmp_path / "cache")
    (server.folder / "00002.tar").unlink()
    with pytest.raises(ShardError, match=f"^{server.url}/00002.tar is missing$"):
        reader.read("c 0/v4", [0])
    with pytest.raises(ShardError, match=f"^{server.url}/no/index.json is missing$"):
        ShardedVideos(server.url + "/no")
    assert server.requests["00002.tar"] == 1
    with pytest.raises(ShardError, match=r"nowhere://x/index.json cannot be read: .*nowhere"):
        ShardedVideos("nowhere://x")


# ---- The cache ----


def test_the_cache_keeps_its_size(server: ShardServer, tmp_path: Path) -> None:
    cache, size = tmp_path / "cache", shard_bytes(server.folder)
    reader = ShardedVideos(server.url, cache, cache_bytes=2 * size + 100)
    for path in [*VIDEOS, *VIDEOS]:
        assert reader.fingerprint(path, 1) == VIDEOS[path][1]
        assert size_of(cache) <= 2 * size
    assert server.requests["00000.tar"] == 2, "it was removed for the last one"
    reader.read("c 0/v2", [0])
    reader.read("c 0/v0", [0])  # in place of the one that was used least recently
    before = server.requests.copy()
    reader.read("c 0/v2", [0])
    assert server.requests == before
    small = ShardedVideos(server.url, tmp_path / "small", cache_bytes=size - 1)
    with pytest.raises(ShardError, match=f"has {size} bytes, the cache may have {size - 1}: raise dataset.shard_cache"):
        small.read("c 0/v0", [0])


def _read_often(url: str, cache: Path, limit: int, seed: int) -> None:
    reader = ShardedVideos(url, cache, cache_bytes=limit)
    for path in np.random.default_rng(seed).permutation([*VIDEOS] * 4):
        assert reader.fingerprint(path, 2) == VIDEOS[path][2]


def test_processes_share_a_cache(server: ShardServer, tmp_path: Path) -> None:
    """All of them together keep its size, and one of them downloads a shard for all."""
    size, context = shard_bytes(server.folder), multiprocessing.get_context("fork")
    for cache, limit in ((tmp_path / "large", 10 * size), (tmp_path / "small", 2 * size)):
        server.requests.clear()
        readers = [context.Process(target=_read_often, args=(server.url, cache, limit, seed)) for seed in range(3)]
        for reader in readers:
            reader.start()
        while any(reader.is_alive() for reader in readers):
            assert not cache.exists() or _size_now(cache) <= limit
            time.sleep(0.005)
        assert [reader.exitcode for reader in readers] == [0, 0, 0]
        if limit > 3 * size:
            assert [server.requests[f"0000{i}.tar"] for i in range(SHARDS)] == [1, 1, 1]


def _size_now(cache: Path) -> int:
    """Bytes of the shards, while other processes change them."""
    size = 0
    for file in cache.glob("*.tar"):
        with suppress(FileNotFoundError):
            size += file.stat().st_size
    return size


def test_a_process_that_is_killed_in_a_download_leaves_nothing(server: ShardServer, tmp_path: Path) -> None:
    cache, size = tmp_path / "cache", shard_bytes(server.folder)
    reader = ShardedVideos(server.url, cache, cache_bytes=size)
    server.hold.clear()
    victim = multiprocessing.get_context("fork").Process(target=reader.read, args=("c 0/v0", [0]))
    victim.start()
    while not server.requests["00000.tar"]:
        time.sleep(0.01)
    victim.kill()
    victim.join()
    server.hold.set()
    (left,) = (file for file in cache.glob("*.lock") if file.name != "all.lock")
    left.with_suffix(".part").write_bytes(b"half")
    reader.read("c 0/v2", [0])
    assert not left.exists()
    assert not list(cache.glob("*.part"))
    assert_reads_all(reader)


def test_a_cached_shard_that_is_cut_short_is_downloaded_again(server: ShardServer, tmp_path: Path) -> None:
    reader = ShardedVideos(server.url, tmp_path)
    reader.read("c 0/v0", [0])
    (cached,) = tmp_path.glob("*.tar")
    os.truncate(cached, 100)
    assert reader.fingerprint("c 0/v0", 0) == VIDEOS["c 0/v0"][0]


def test_a_shard_can_be_downloaded_in_advance(server: ShardServer, tmp_path: Path) -> None:
    reader = ShardedVideos(server.url, tmp_path / "cache")
    for _ in range(3):
        reader.prepare("c 0/v2")
    reader.prepare("no")
    while not reader.cache.has(reader.shards[1]):
        time.sleep(0.01)
    assert reader.fingerprint("c 0/v2", 0) == VIDEOS["c 0/v2"][0]
    assert (server.requests["00001.tar"], server.requests["00000.tar"]) == (1, 0)
