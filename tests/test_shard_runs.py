"""Runs of train_val_3d.py from shards over HTTP: killed and resumed, with other numbers of workers and processes."""

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import train_val_3d
from datasets import downloads
from tests.datasets.shard_files import write_shards
from tests.datasets.shard_server import ShardServer, serve
from tests.script import FRAMES, arguments
from tests.test_script_runs import _PROCESSES, assert_same_run

pytest.importorskip("aiohttp", reason="fsspec reads http:// with it")


@pytest.fixture
def server(data: Path, tmp_path: Path) -> Iterator[ShardServer]:
    """Four shards, of two videos each but for the last one."""
    videos = {
        f"v {video}": [(data / f"frames/v {video}/{frame:05d}.jpg").read_bytes() for frame in range(1, FRAMES + 1)]
        for video in (3, 0, 5, 1, 6, 2, 4)
    }
    size = sum(map(len, videos["v 3"]))
    with serve(write_shards(tmp_path / "shards", videos, shard_bytes=int(1.5 * size))) as served:
        assert len(list(served.folder.glob("*.tar"))) == 4
        yield served


def options(server: ShardServer, cache: Path, workers: int, *more: str) -> list[str]:
    """Settings of a run from shards, whose cache holds three of the four."""
    limit = 3.2e-9 * max(file.stat().st_size for file in server.folder.glob("*.tar"))
    return [
        *("--resume", "auto", "--set", "dataset.format=SHARDS", f"dataset.root_path={server.url}"),
        *(f"dataset.shard_cache={cache}", f"dataset.shard_cache_gb={limit:.9f}", "dataset.shard_window=2"),
        *(f"dataset.num_workers={workers}", "logging.save_iter_freq=1", *more),
    ]


def _run(argv: list[str]) -> None:
    torch.set_num_threads(1)
    downloads._WAITS = (0.05, 0.05)  # type: ignore[assignment]
    sys.exit(train_val_3d.main(argv))


def test_a_killed_run_goes_on_with_the_same_bits(data: Path, server: ShardServer, tmp_path: Path) -> None:
    """With another number of workers, an empty cache, and a network that fails now and then."""
    (data / "shuffled.txt").write_text("".join((data / "list.txt").read_text().splitlines(keepends=True)[::-1]))
    epochs = ("optimization.epochs=3", f"dataset.list_file={data}/shuffled.txt")
    whole = arguments(data, tmp_path / "whole", *options(server, tmp_path / "a", 0, *epochs))
    assert train_val_3d.main(whole) == 0

    killed = arguments(data, tmp_path / "killed", *options(server, tmp_path / "b", 1, *epochs))
    run = _PROCESSES.Process(target=_run, args=(killed,))
    run.start()
    saved = tmp_path / "killed/checkpoints/last.pth"
    while not (saved.exists() and torch.load(saved, weights_only=True)["iteration"]):
        assert run.is_alive()
        time.sleep(0.01)
    run.kill()
    run.join()

    shutil.rmtree(tmp_path / "b")
    server.faults = {"00000.tar": ["500"], "00001.tar": ["cut"], "00002.tar": ["flip"], "index.json": ["500"]}
    resumed = arguments(data, tmp_path / "killed", *options(server, tmp_path / "b", 2, *epochs))
    run = _PROCESSES.Process(target=_run, args=(resumed,))
    run.start()
    run.join()
    assert run.exitcode == 0
    assert not any(server.faults.values())
    log = (tmp_path / "killed/log.txt").read_text()
    assert "resumed from" in log
    assert "other than before" not in log
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
