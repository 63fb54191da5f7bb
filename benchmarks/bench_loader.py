"""How many clips a loader's worker makes in a second, beside Pillow and the limit that decoding sets.

    python -m benchmarks.bench_loader [--frames FOLDER] [--out FILE.md]

One process on one core turns 16 JPEG frames of 340 x 256 into a normalised clip of 224 x 224. All take turns in one
run, on the same clips, and the time of each is its fastest round's: what a shared machine adds is never negative. CPU
time is less disturbed by others than the clock, and ratios are less than either. Frames are drawn, or those of a folder
that has a folder of 00001.jpg, ... for each video.
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
import PIL
import torch
import torchvision
from torch.utils.data import DataLoader, default_collate

from benchmarks.pictures import natural_clip
from benchmarks.pillow import RECIPES, clip_of, on_pictures
from common.errors import DataError
from datasets import (
    ClipDataset,
    FrameFolder,
    colour,
    normalise,
    train_transform,
    transforms,
    val_transform,
    worker_init,
)

BATCH = 8


@dataclass
class Clips:
    """What is measured on: the first frames of some videos, and the recipes for them."""

    root: Path
    list_file: Path
    frames: int  # of a clip
    crop: int  # pixels

    def transform(self, recipe: str) -> transforms.Transform:
        return val_transform(self.crop) if recipe == "validation" else train_transform(self.crop, **RECIPES[recipe])

    def dataset(self, recipe: str) -> ClipDataset:
        return ClipDataset(
            self.list_file,
            self.root,
            num_classes=1,
            num_segments=1,
            clip_length=self.frames,
            num_steps=1,
            transform=self.transform(recipe),
            train=recipe != "validation",
        )

    def videos(self) -> list[str]:
        return [line.rsplit(" ", 2)[0] for line in self.list_file.read_text().splitlines()]


def write_clips(folder: Path, videos: int, frames: int, height: int, width: int) -> None:
    for video in range(videos):
        (folder / f"{video}").mkdir(parents=True)
        for number, frame in enumerate(natural_clip(frames, height, width, seed=video), start=1):
            data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
            (folder / f"{video}" / f"{number:05d}.jpg").write_bytes(data.tobytes())


def write_list(root: Path, list_file: Path, frames: int) -> None:
    """Of the videos with so many frames, all of just this length: whatever position is drawn is then the first.

    Raises DataError if there is none.
    """
    reader = FrameFolder(root)
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    lines = [f"{name} {frames} 0\n" for name in names if reader.count(name) >= frames]
    if not lines:
        raise DataError(f"{root} has no folder with {frames} frames 00001.jpg, ...")
    list_file.write_text("".join(lines))


# ---- What is compared ------------------------------------------------------------------------------------------------


def contestants(clips: Clips) -> dict[str, Callable[[int], object]]:
    """Each makes clip number i: ours under the recipe's name, the reference as "NAME, Pillow", and decoding alone."""
    videos = clips.videos()
    made: dict[str, Callable[[int], object]] = {}
    files = {video: [clips.root / video / f"{i + 1:05d}.jpg" for i in range(clips.frames)] for video in videos}
    data = {video: [np.fromfile(file, dtype=np.uint8) for file in files[video]] for video in videos}

    def decode(i: int) -> None:
        for encoded in data[videos[i % len(videos)]]:
            cv2.imdecode(encoded, cv2.IMREAD_COLOR)

    made["decoding alone"] = decode
    for recipe in RECIPES:
        dataset, pillow = clips.dataset(recipe), on_pictures(recipe, clips.crop)

        def ours(i: int, dataset: ClipDataset = dataset) -> torch.Tensor:
            return normalise(dataset[i % len(videos), i // len(videos)][0][None])

        def theirs(i: int, pillow: Callable = pillow) -> torch.Tensor:
            return normalise(clip_of(files[videos[i % len(videos)]], pillow, i)[None])

        made |= {recipe: ours, f"{recipe}, Pillow": theirs}
    return made


# ---- How it is measured ----------------------------------------------------------------------------------------------


def alone_on_a_core(core: int) -> None:
    os.sched_setaffinity(0, {core})
    worker_init(0)


def in_worker(core: int, function: Callable, *arguments: Any) -> Any:
    """What a function returns in a process of its own, like a loader's worker, on one core."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        alone_on_a_core(core)
        sender.send(function(*arguments))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def fastest_rounds(clips: Clips, count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """(CPU seconds, seconds on the clock) a clip of each contestant's fastest round of `count` clips."""
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    made = contestants(clips)
    for _ in range(rounds):
        for name, make in made.items():
            make(0)  # brings its code and data back into the caches
            cpu, clock = time.process_time(), time.perf_counter()
            for i in range(count):
                make(i)
            times[name].append(((time.process_time() - cpu) / count, (time.perf_counter() - clock) / count))
    return {name: (min(cpu for cpu, _ in found), min(clock for _, clock in found)) for name, found in times.items()}


STAGES = {  # in which functions the time is spent; an inner one's is not its caller's
    "read, decode": (FrameFolder, "read"),
    "crop, resize": (transforms, "_resize"),
    "jitter": (transforms, "jitter_and_blur"),
    "RandAugment": (transforms, "apply_random_operations"),
    "blur": (colour, "blur"),
}


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """CPU seconds of each stage while it is open."""
    spent: dict[str, float] = defaultdict(float)
    open_stages: list[str] = []

    def timed(stage: str, function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            began = time.process_time()
            open_stages.append(stage)
            result = function(*arguments, **options)
            open_stages.pop()
            took = time.process_time() - began
            spent[stage] += took
            if open_stages:
                spent[open_stages[-1]] -= took
            return result

        return call

    with ExitStack() as stack:
        for stage, (owner, name) in STAGES.items():
            stack.enter_context(mock.patch.object(owner, name, timed(stage, getattr(owner, name))))
        yield spent


def time_by_stage(clips: Clips, count: int, rounds: int) -> dict[str, dict[str, float]]:
    """CPU seconds a clip of each recipe's stages, in the fastest round; `rest` is in no stage."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(rounds):
        for recipe in RECIPES:
            with stopwatch() as spent:
                dataset = clips.dataset(recipe)
                samples: list[Any] = []
                began = time.process_time()
                for i in range(count):
                    samples = [*samples[-BATCH + 1 :], dataset[i % len(dataset), i // len(dataset)]]
                spent["rest"] = time.process_time() - began - sum(spent.values())
                began = time.process_time()
                batch = default_collate(samples)[0]
                spent["collate"] = (time.process_time() - began) * count / len(samples)
                began = time.process_time()
                normalise(batch)
                spent["normalise (on the device)"] = (time.process_time() - began) * count / len(samples)
            found[recipe].append({stage: seconds / count for stage, seconds in spent.items()})
    return {recipe: min(rounds, key=lambda stages: sum(stages.values())) for recipe, rounds in found.items()}


def with_workers(clips: Clips, workers: int, count: int) -> tuple[float, float]:
    """(clips a second on the clock, CPU seconds a clip in the workers) of a loader with jitter and blur."""
    dataset, cores = clips.dataset("jitter and blur"), sorted(os.sched_getaffinity(0))
    keys = [(i % len(dataset), i // len(dataset)) for i in range(count)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=keys,
        num_workers=workers,
        worker_init_fn=lambda worker: alone_on_a_core(cores[worker % len(cores)]),
    )
    batches = iter(loader)
    for _ in range(workers):  # each has started when its first batch is there
        next(batches)
    began = time.perf_counter()
    done = sum(len(labels) for _, labels, _ in batches)
    clock = time.perf_counter() - began
    del batches
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done / clock, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count


def memory_over_samples(clips: Clips, samples: int) -> dict[int, float]:
    """MiB of its own that a worker holds after so many samples with jitter and blur."""
    dataset = clips.dataset("jitter and blur")
    keys = [(i % len(dataset), i // len(dataset)) for i in range(samples)]
    others = set(multiprocessing.active_children())
    loader: DataLoader = DataLoader(dataset, BATCH, sampler=keys, num_workers=1, worker_init_fn=worker_init)
    found, seen = {}, 0
    for _, labels, _ in loader:
        seen += len(labels)
        if seen % max(samples // 10 // BATCH * BATCH, BATCH) == 0:
            (worker,) = set(multiprocessing.active_children()) - others
            status = Path(f"/proc/{worker.pid}/status").read_text()
            (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
            found[seen] = int(line.split()[1]) / 1024
    return found


def agreement(clips: Clips, count: int) -> dict[str, tuple[float, float, float, float, float]]:
    """(mean, deviation, the reference's mean, deviation, mean difference of a value) of `count` frames.

    In grey levels, with the same draws on both sides.
    """
    reader, videos = FrameFolder(clips.root), clips.videos()
    found = {}
    for recipe in RECIPES:
        ours, pillow = clips.transform(recipe), on_pictures(recipe, clips.crop)
        figures = []
        for i in range(count):
            video = videos[i % len(videos)]
            torch.manual_seed(i)
            mine = ours(reader.read(video, [0])).astype(np.float32)
            other = clip_of([clips.root / video / "00001.jpg"], pillow, i).numpy().astype(np.float32)
            figures.append((mine.mean(), mine.std(), other.mean(), other.std(), np.abs(mine - other).mean()))
        found[recipe] = tuple(np.mean(figures, axis=0).tolist())
    return found


def report(clips: Clips, options: argparse.Namespace) -> Iterator[str]:
    """The lines of the report, as they are found."""
    core = sorted(os.sched_getaffinity(0))[-1]
    yield (
        f"One core, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}; {len(clips.videos())} videos "
        f"{options.source}, {clips.frames} frames to {clips.crop} x {clips.crop} float32; fastest of {options.rounds} "
        f"rounds of {options.clips} clips."
    )
    times = in_worker(core, fastest_rounds, clips, options.clips, options.rounds)
    limit, clock = times["decoding alone"]
    yield from ("", "Clips a second of one worker: of its CPU time, and on the clock of a shared machine.", "")
    yield "| recipe | CPU | clock | Pillow, CPU | clock | times Pillow (CPU) | of decoding alone |"
    yield "|---|---|---|---|---|---|---|"
    yield f"| decoding alone (cv2.imdecode) | {1 / limit:.0f} | {1 / clock:.0f} | | | | |"
    for recipe in RECIPES:
        (cpu, clock), (other, other_clock) = times[recipe], times[f"{recipe}, Pillow"]
        yield (
            f"| {recipe} | {1 / cpu:.0f} | {1 / clock:.0f} | {1 / other:.1f} | {1 / other_clock:.1f} | "
            f"{other / cpu:.1f} | {100 * limit / cpu:.0f} % |"
        )

    stages = in_worker(core, time_by_stage, clips, options.clips, options.rounds)
    columns = [*STAGES, "rest", "collate", "normalise (on the device)"]
    yield from ("", "Where the time goes: CPU milliseconds a clip.", "")
    yield f"| recipe | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for recipe, spent in stages.items():
        cells = [f"{1e3 * spent[stage]:.2f}" if stage in spent else "" for stage in columns]
        yield f"| {recipe} | {' | '.join(cells)} |"

    frames = 20 * options.clips
    yield from ("", f"Grey levels of {frames} frames beside Pillow's, with the same draws.", "")
    yield "| recipe | mean | Pillow's | deviation | Pillow's | mean difference of a value |"
    yield "|---|---|---|---|---|---|"
    for recipe, (mean, deviation, other_mean, other_deviation, difference) in agreement(clips, frames).items():
        levels = f"{mean:.1f} | {other_mean:.1f} | {deviation:.1f} | {other_deviation:.1f}"
        yield f"| {recipe} | {levels} | {difference:.2f} |"

    yield from (
        "",
        "A loader with jitter and blur, each worker on a core that it shares with whoever takes the batches.",
        "",
    )
    yield "| workers | clips/s on the clock | CPU ms a clip in the workers, their start included |"
    yield "|---|---|---|"
    for workers in options.workers:
        speed, cpu = with_workers(clips, workers, options.clips * 8)
        yield f"| {workers} | {speed:.0f} | {1e3 * cpu:.1f} |"

    memory = in_worker(core, memory_over_samples, clips, options.samples)
    yield from ("", "Memory of a worker (without what it shares) after so many samples with jitter and blur, MiB:", "")
    yield ", ".join(f"{samples}: {size:.0f}" for samples, size in memory.items())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="a folder of videos as frames; default: drawn ones")
    parser.add_argument("--clips", type=int, default=48, help="a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, default=10_000, help="over which memory is watched")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--length", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--crop", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=[256, 340], help="of drawn frames (default: 256 340)")
    parser.add_argument("--out", type=Path, help="write the report here too, as Markdown")
    options = parser.parse_args(arguments)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        root, list_file = options.frames or Path(folder, "frames"), Path(folder, "list.txt")
        options.source = f"from {root.name}"
        if not options.frames:
            height, width = options.size
            options.source = f"drawn, {width} x {height}, JPEG of quality 90"
            write_clips(root, 12, options.length, height, width)
        try:
            write_list(root, list_file, options.length)
        except DataError as error:
            parser.exit(2, f"error: {error}\n")
        for line in report(Clips(root, list_file, options.length, options.crop), options):
            print(line, flush=True)
            lines.append(line)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
