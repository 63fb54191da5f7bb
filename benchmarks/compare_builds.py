"""Compares the CPU time of two builds of the op, for example before and after a change of its C++.

    python -m benchmarks.compare_builds BEFORE AFTER

BEFORE and AFTER are folders that contain a package cuda_sifa with its _C.so. A process can load one library only, so
each has a process of its own. They take turns, call by call, with one thread each: a busy machine slows both alike. A
row is the ratio of the medians of CPU time, after to before.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

# (N, T, C, H, W), whether with offsets, whether channels are innermost, repetitions inside one turn.
CASES = [
    ((1, 2, 8, 4, 4), True, True, 200),
    ((2, 4, 128, 28, 28), True, True, 1),
    ((2, 4, 128, 28, 28), True, False, 1),
    ((2, 4, 256, 14, 14), True, True, 2),
    ((2, 4, 512, 7, 7), True, True, 4),
    ((2, 4, 256, 14, 14), False, True, 4),
]

WORKER = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch, cuda_sifa
torch.set_num_threads(1)
assert "cpu" in cuda_sifa.library.devices
for line in sys.stdin:
    shape, deformable, innermost, repeat = eval(line)
    n, t, c, h, w = shape
    torch.manual_seed(0)
    x = torch.randn(n, t, h, w, c).permute(0, 1, 4, 2, 3)
    x = (x if innermost else x.contiguous()).requires_grad_()
    offset = torch.randn(n, t - 1, 18, h, w).requires_grad_() if deformable else None
    for order in sys.stdin:
        if order != "again\\n":
            break
        start = time.process_time()
        for _ in range(repeat):
            attended = cuda_sifa.inter_frame_attention(x, offset)
        middle = time.process_time()
        for _ in range(repeat):
            cuda_sifa.inter_frame_attention(x, offset).backward(x.detach())
        print((middle - start) / repeat, (time.process_time() - middle) / repeat, flush=True)
"""


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", WORKER, str(folder.resolve())]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def say(worker: subprocess.Popen, line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def times(worker: subprocess.Popen) -> list[float]:
    """The seconds of CPU for one forward pass, and for a forward and a backward pass."""
    say(worker, "again")
    assert worker.stdout is not None
    return [float(word) for word in worker.stdout.readline().split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--turns", type=int, default=30)
    args = parser.parse_args()
    workers = [start(args.before), start(args.after)]
    print("| N, T, C, H, W | offsets | memory | forward | after / before | with backward | after / before |")
    print("|---|---|---|---|---|---|---|")
    for shape, deformable, innermost, repeat in CASES:
        for worker in workers:
            say(worker, repr((shape, deformable, innermost, repeat)))
            times(worker)  # warm
        rows: list[list[list[float]]] = [[], []]
        for turn in range(args.turns):
            for which in (0, 1) if turn % 2 == 0 else (1, 0):
                rows[which].append(times(workers[which]))
        for worker in workers:
            say(worker, "")
        (f0, b0), (f1, b1) = ([statistics.median(column) for column in zip(*row, strict=True)] for row in rows)
        names = f"{', '.join(map(str, shape))} | {'yes' if deformable else 'no'} | {'NTHWC' if innermost else 'NTCHW'}"
        print(f"| {names} | {f1 * 1e3:.3f} ms | {f1 / f0:.3f} | {b1 * 1e3:.3f} ms | {b1 / b0:.3f} |", flush=True)
    for worker in workers:
        worker.communicate()


if __name__ == "__main__":
    main()
