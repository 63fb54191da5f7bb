"""The processes of pools and loaders end with the process that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POOL = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from datasets.processes import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with ProcessPoolExecutor(1, context, initializer=end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""
LOADER = """
import os, sys, time
from torch.utils.data import DataLoader, Dataset
from datasets.clips import worker_init

class Numbers(Dataset):
    def __len__(self):
        return 1000

    def __getitem__(self, index):
        return os.getpid()

if __name__ == "__main__":
    options = {"num_workers": 2, "worker_init_fn": worker_init, "multiprocessing_context": sys.argv[1]}
    numbers = iter(DataLoader(Numbers(), **options))
    next(numbers)
    print(int(next(numbers)), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("program", "start", "how"),
    [
        (POOL, "fork", signal.SIGTERM),
        (POOL, "fork", signal.SIGKILL),
        (POOL, "spawn", signal.SIGTERM),
        (POOL, "spawn", signal.SIGKILL),
        (POOL, "forkserver", signal.SIGKILL),
        (LOADER, "forkserver", signal.SIGKILL),  # in other ways PyTorch sees to it as well
    ],
    ids=["fork, SIGTERM", "fork", "spawn, SIGTERM", "spawn", "forkserver", "loader, forkserver"],
)
def test_a_worker_ends_with_its_parent(program: str, start: str, how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(program)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), start],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout
    worker = int(parent.stdout.readline())
    os.kill(worker, 0)  # it is there
    parent.send_signal(how)
    parent.wait()
    try:
        assert _ends(worker)
    finally:
        parent.stdout.close()


def _ends(process: int, seconds: float = 30) -> bool:
    """Whether a process ends in this time; it is killed if not. A zombie has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    return False


def test_every_pool_has_such_workers() -> None:
    packages = ("benchmarks", "datasets", "engine", "models", "sifa", "tools", "visualization")
    sources = {file: file.read_text(encoding="utf-8") for name in packages for file in (ROOT / name).rglob("*.py")}
    pools = {file for file, source in sources.items() if "ProcessPoolExecutor(" in source}
    assert len(pools) >= 3
    assert all("end_with_parent" in sources[file] for file in pools)
