"""Two machines: network namespaces with addresses of their own, a torchrun in each. One dies and is replaced."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.script import ROOT, arguments, launch

ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
# docs/training.md: agents must not share the store of the first round, or a node that comes later finds no address.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def name(node: str) -> str:
    return f"sifa-{os.getpid()}-{node}"


@pytest.fixture
def _nodes() -> Iterator[None]:
    def ip(words: str, check: bool = True) -> None:
        subprocess.run(["ip", *words.split()], check=check, capture_output=True)

    try:
        for node in ADDRESSES:
            ip(f"netns add {name(node)}")
        ip(f"link add sifa-a netns {name('a')} type veth peer name sifa-b netns {name('b')}")
        for node, address in ADDRESSES.items():
            ip(f"-n {name(node)} addr add {address}/24 dev sifa-{node}")
            ip(f"-n {name(node)} link set lo up")
            ip(f"-n {name(node)} link set sifa-{node} up")
    except (OSError, subprocess.CalledProcessError):
        for node in ADDRESSES:
            with contextlib.suppress(OSError):
                ip(f"netns del {name(node)}", check=False)
        pytest.skip("this machine does not let a test make network namespaces")
    yield
    for node in ADDRESSES:
        ip(f"netns del {name(node)}", check=False)


def start(node: str, log: Path, argv: list[str]) -> subprocess.Popen[bytes]:
    with open(log, "w") as file:
        return subprocess.Popen(
            [
                *("ip", "netns", "exec", name(node), sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes=2", "--nproc_per_node=1", "--max-restarts=3", "--rdzv_id=test", "--rdzv_backend=c10d"),
                *(f"--rdzv_endpoint={ADDRESSES['a']}:29511", f"--rdzv_conf=is_host={int(node == 'a')}"),
                *(f"--local-addr={ADDRESSES[node]}", "train_val_3d.py", *argv),
            ],
            cwd=ROOT,
            env={**ENVIRONMENT, "GLOO_SOCKET_IFNAME": f"sifa-{node}"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for(word: str, log: Path, run: subprocess.Popen[bytes], seconds: int = 120) -> None:
    for _ in range(10 * seconds):
        if word in log.read_text():
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(0.1)
    raise AssertionError(f"no {word!r} in {log.read_text()}")


def kill_node(node: str) -> None:
    """Everything in the namespace dies at once, as when the power fails."""
    found = subprocess.run(["ip", "netns", "pids", name(node)], check=True, capture_output=True, text=True)
    for process in found.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)


@pytest.mark.usefixtures("_nodes")
def test_two_nodes_and_the_death_of_one(data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text((data / "list.txt").read_text() * 2)
    more = ["optimization.epochs=4", "logging.save_iter_freq=1", f"dataset.list_file={tmp_path}/list.txt"]
    argv = ["--resume", "auto", "--set", *more]
    whole = launch(["torch.distributed.run", "--standalone"], 2, *arguments(data, tmp_path / "whole", *argv))
    assert whole.returncode == 0, whole.stderr

    argv = arguments(data, tmp_path / "nodes", *argv)
    logs = {run: tmp_path / f"{run}.log" for run in ("a", "b", "new b")}
    runs = {node: start(node, logs[node], argv) for node in "ab"}
    try:
        wait_for("epoch 2/4  1/3", logs["a"], runs["a"])
        kill_node("b")
        runs["new b"] = start("b", logs["new b"], argv)
        for run in ("a", "new b"):
            assert runs[run].wait(180) == 0, logs[run].read_text()
    finally:
        for node in ADDRESSES:
            kill_node(node)
    log = logs["a"].read_text()
    assert "rank 0 has lost rank 1 on" in log or "rank 1 has lost rank 0 on" in log
    assert "resumed from" in log + logs["new b"].read_text()
    one, other = (
        torch.load(tmp_path / run / "checkpoints/last.pth", weights_only=True)["model"] for run in ("whole", "nodes")
    )
    for weight, value in one.items():
        assert torch.equal(value, other[weight]), weight
