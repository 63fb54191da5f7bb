"""How many videos a second are predicted, and what the number of threads costs, on an idle and on a loaded machine.

    python -m benchmarks.bench_predict --out benchmarks/results/predict-cpu.md

Draws the demo's videos, and gives the network of settings/demo.yml random weights. Each case is a process of its own
that predicts all videos once to warm up, and then once for the time. The cases take turns. "Loaded" means that --load
other processes compute meanwhile. Other work on the machine spoils the figures: the load average is printed with them.

"one by one" is how predictions were made before: count the frames, decode again, one video for each call of the
network, BatchNorm as it was trained.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import chain
from pathlib import Path

import torch

import sifa
from datasets.preparation.demo_videos import write_demo_videos
from datasets.video_files import VideoFiles
from engine.checkpoint import save_checkpoint
from engine.config import load_config
from engine.metrics import loss_over_heads
from sifa.build import build_network
from sifa.predictor import count_frames

ALL = "all"  # threads: as many as PyTorch chooses
#: name -> (what is done, threads, OMP_WAIT_POLICY)
CASES = {
    "predict, one by one, all threads": ("one by one", ALL, ""),
    "predict, one by one, 1 thread": ("one by one", "1", ""),
    "predict, now, all threads, spinning": ("now", ALL, ""),
    "predict, now, all threads": ("now", ALL, "PASSIVE"),
    "predict, now, 1 thread (the default)": ("now", "1", "PASSIVE"),
    "train, all threads, spinning": ("train", ALL, ""),
    "train, all threads": ("train", ALL, "PASSIVE"),
    "train, 1 thread (the default)": ("train", "1", "PASSIVE"),
}
STEPS = 20  # of a training, with 8 clips each


def predict_one_by_one(checkpoint: Path, videos: list[Path]) -> None:
    """As before `Predictor.predict_many`."""
    predictor = sifa.load(checkpoint, fold=False, threads=torch.get_num_threads())
    for video in videos:
        positions = predictor.positions(count_frames(video))
        frames = VideoFiles(video.parent).read(video.name, list(chain(*positions)))
        predictor.probabilities(predictor.crops(frames)).mean(0)


def predict_now(checkpoint: Path, videos: list[Path]) -> None:
    predictor = sifa.load(checkpoint, threads=torch.get_num_threads())
    for one in predictor.predict_many(videos):
        assert one.error is None


def train(checkpoint: Path, videos: list[Path]) -> None:
    """STEPS steps of the demo's network on random clips."""
    predictor = sifa.load(checkpoint)
    network = predictor.model.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    clips, labels = torch.randn(8, 3, predictor.frames, predictor.size, predictor.size), torch.arange(8)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_over_heads(network(clips), labels).backward()
        optimizer.step()


def run_case(what: str, checkpoint: Path, videos: list[Path]) -> float:
    """Seconds, after a short warm-up."""
    run = {"one by one": predict_one_by_one, "now": predict_now, "train": train}[what]
    run(checkpoint, videos[:20])
    start = time.perf_counter()
    run(checkpoint, videos)
    return time.perf_counter() - start


def seconds(name: str, folder: Path) -> float:
    """The time of a case in a process of its own."""
    what, threads, policy = CASES[name]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    environment |= {"OMP_NUM_THREADS": threads} if threads != ALL else {}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    command = [sys.executable, "-m", "benchmarks.bench_predict", "--case", what, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def load(processes: int) -> Iterator[None]:
    """Other work on the machine: processes that compute without end."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: sum(range(10000))"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(folder: Path, cases: list[str], rounds: int, processes: int, amount: int) -> list[str]:
    """The lines of the table for one condition."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    with load(processes):
        for number in range(rounds):
            for name in cases:
                times[name].append(seconds(name, folder))
                print(f"round {number + 1}, {processes} busy: {name}: {times[name][-1]:.1f} s", file=sys.stderr)
    lines = []
    for name, values in times.items():
        predicts = name.startswith("predict")
        first = times[next(other for other in CASES if other.split(",")[0] == name.split(",")[0])]
        ratio = statistics.median(before / now for before, now in zip(first, values, strict=True))
        rate = (amount if predicts else STEPS * 8) / statistics.median(values)
        unit = "videos" if predicts else "clips"
        lines.append(f"| {name} | {statistics.median(values):.1f} | {rate:.1f} {unit}/s | {ratio:.2f} |")
    return lines


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=19, help="of each of eight classes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("predict", "train"), help="the cases of one kind")
    parser.add_argument("--load", type=int, default=os.cpu_count(), help="busy processes (default: one for each core)")
    parser.add_argument("--out", type=Path, help="also write the tables to this file, as Markdown")
    parser.add_argument("--case", help="used by the script itself")
    parser.add_argument("--folder", type=Path, help="used by the script itself")
    args = parser.parse_args(argv)
    if args.case:
        print(run_case(args.case, args.folder / "last.pth", sorted(args.folder.glob("val/*/*.mp4"))))
        return
    cases = [name for name in CASES if name.startswith(args.only or "")]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_demo_videos(folder, {"train": 1, "val": args.videos}, size=96, frames=24, seed=1, workers=1)
        config = load_config("settings/demo.yml")
        torch.manual_seed(0)
        weights = build_network(config).state_dict()
        save_checkpoint(folder / "last.pth", {"model": weights, "config": config.model_dump(), "classes": []})
        text = (
            f"{8 * args.videos} drawn videos of 24 x 96 x 96, the network of settings/demo.yml (clips of "
            f"{config.dataset.clip_length} x {config.transform.crop_size} x {config.transform.crop_size}), "
            f"{args.rounds} rounds, medians; ratio: how many times as fast as the first line of its kind, paired.\n"
            f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch "
            f"{torch.__version__}, Python {platform.python_version()}, {date.today()}\n"
        )
        for name, processes in (("No load by this script", 0), (f"{args.load} busy processes", args.load)):
            before = os.getloadavg()[0]
            rows = measure(folder, cases, args.rounds, processes, 8 * args.videos)
            text += f"\n{name}; load average of the machine {before:.1f} before and {os.getloadavg()[0]:.1f} after\n\n"
            text += "| case | seconds | rate | ratio |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
            print(text, flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
