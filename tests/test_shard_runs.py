"""Runs of train_val_3d.py from shards over HTTP: killed and resumed, with other numbers of workers and processes."""

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import train_val_3d
from datasets import downloads
from engine import logger
from engine.checkpoint import save_checkpoint
from tests.datasets.shard_files import write_shards
from tests.datasets.shard_server import ShardServer, serve
from tests.script import FRAMES, VIDEOS, arguments, metrics
from tests.test_script_runs import _PROCESSES, assert_same_run

pytest.importorskip("aiohttp", reason="fsspec reads http:// with it")


@pytest.fixture(scope="module")
def server(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShardServer]:
    """Four shards, of two videos each but for the last one."""
    videos = {
        f"v {video}": [(data / f"frames/v {video}/{frame:05d}.jpg").read_bytes() for frame in range(1, FRAMES + 1)]
        for video in (3, 0, 5, 1, 6, 2, 4)
    }
    size = sum(map(len, videos["v 3"]))
    with serve(write_shards(tmp_path_factory.mktemp("http") / "shards", videos, int(1.5 * size))) as served:
        assert len(list(served.folder.glob("*.tar"))) == 4
        yield served


def options(server: ShardServer, cache: Path, *more: str) -> list[str]:
    """Settings of a run from shards, whose cache holds three of the four."""
    limit = 3.2e-9 * max(file.stat().st_size for file in server.folder.glob("*.tar"))
    return [
        *("--set", "dataset.format=SHARDS", f"dataset.root_path={server.url}", f"dataset.shard_cache={cache}"),
        *(f"dataset.shard_cache_gb={limit:.9f}", "dataset.shard_window=2", "optimization.epochs=3"),
        *("logging.save_iter_freq=1", *more),
    ]


def _run(argv: list[str], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    downloads._WAITS = (0.05, 0.05)  # type: ignore[assignment]
    sys.exit(train_val_3d.main(argv))


def run(*processes: list[str], **environment: str) -> None:
    """Runs the script in a process for each list of arguments, which are the ranks of one run."""
    ranks = [
        {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{len(processes)}", **environment}
        for rank in range(len(processes))
    ]
    running = [_PROCESSES.Process(target=_run, args=one) for one in zip(processes, ranks, strict=True)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * len(processes)


def _save_and_die(path: Path, contents: dict[str, Any], **options: Any) -> None:
    save_checkpoint(path, contents, **options)
    if contents["iteration"]:
        os.kill(os.getpid(), signal.SIGKILL)


def _run_until_saved_within_an_epoch(argv: list[str]) -> None:
    logger.save_checkpoint = _save_and_die
    _run(argv, {})


@pytest.fixture(scope="module")
def stopped(data: Path, server: ShardServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that was killed within its first epoch: by itself, as others may be late."""
    output = tmp_path_factory.mktemp("stopped")
    argv = arguments(data, output, *options(server, output.with_name("first cache"), "dataset.num_workers=1"))
    process = _PROCESSES.Process(target=_run_until_saved_within_an_epoch, args=(argv,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return output


def test_a_killed_run_goes_on_with_the_same_bits(
    data: Path, server: ShardServer, stopped: Path, tmp_path: Path
) -> None:
    """With another number of workers, an empty cache, and a network that fails now and then."""
    assert train_val_3d.main(arguments(data, tmp_path / "whole", *options(server, tmp_path / "a"))) == 0
    shutil.copytree(stopped, tmp_path / "resumed")
    server.faults = {"00000.tar": ["500"], "00001.tar": ["cut"], "00002.tar": ["flip"], "index.json": ["500"]}
    more = options(server, tmp_path / "b", "dataset.num_workers=2")
    run(arguments(data, tmp_path / "resumed", "--resume", "auto", *more))
    assert not any(server.faults.values())
    log = (tmp_path / "resumed/log.txt").read_text()
    assert "resumed from" in log
    assert "other than before" not in log
    assert_same_run(tmp_path / "whole", tmp_path / "resumed")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["dataset.shard_window=1"], "is of the middle of an epoch, whose order another content of dataset.list_file"),
        (
            ["dataset.shard_window=3"],
            r"dataset.shard_cache_gb must be at least [0-9.e-]+, for dataset.shard_window=3 shards",
        ),
        (["dataset.root_path=http://127.0.0.1:1/x"], r"error: http://127.0.0.1:1/x/index.json cannot be read: "),
    ],
)
def test_mistakes_end_in_one_line(
    data: Path,
    server: ShardServer,
    stopped: Path,
    tmp_path: Path,
    changes: list[str],
    message: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloads, "_WAITS", ())
    argv = arguments(data, stopped, "--resume", "auto", *options(server, tmp_path / "cache", *changes))
    assert train_val_3d.main(argv) == 2
    error = capfd.readouterr().err
    assert re.search(message, error)
    assert "Traceback" not in error


def test_one_to_three_processes_validate_alike(data: Path, server: ShardServer, stopped: Path, tmp_path: Path) -> None:
    """Also as from folders of frames: to the bit, with one clip in a batch."""
    more = [f"--checkpoint={stopped}/checkpoints/last.pth", "--eval", "--set", "evaluation.batch_size=1"]
    for world in (1, 2, 3):
        argv = arguments(data, tmp_path / f"{world}", *options(server, tmp_path / "cache"), *more)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = f"{free.getsockname()[1]}"
        run(*[argv] * world, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    assert train_val_3d.main(arguments(data, tmp_path / "frames", *more)) == 0
    figures = [metrics(tmp_path / name) for name in ("1", "2", "3", "frames")]
    for (line,) in figures:
        assert line["videos"] == VIDEOS
        assert [line] == figures[0]
