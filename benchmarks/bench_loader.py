"""How many clips per second a worker of the loader makes, compared with Pillow and with decoding alone.

    python -m benchmarks.bench_loader [--frames FOLDER] [--out FILE.md]

One process on one core turns 16 JPEG frames of 340 x 256 into a normalised clip of 224 x 224. All contestants take
turns in one run, on the same clips. The time of each is that of its fastest round, because other work on a shared
machine only adds time. That work disturbs CPU time less than wall-clock time, and ratios least. The script draws the
frames, or takes those of a folder that has a folder of 00001.jpg, ... for each video.
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
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import PIL
import torch
import torchvision
from torch.utils.data import DataLoader, default_collate

from benchmarks.loader_cases import Clips, agreement, contestants, write_clips, write_list
from benchmarks.pillow import RECIPES
from common.errors import DataError
from datasets import FrameFolder, colour, normalise, transforms, worker_init

BATCH = 8


# ---- Measurements ----------------------------------------------------------------------------------------------------


def start_worker_on(core: int) -> None:
    os.sched_setaffinity(0, {core})
    worker_init(0)


def in_worker(core: int, function: Callable, *arguments: Any) -> Any:
    """Calls a function in a process of its own on one core, set up like a loader's worker, and returns its result."""
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def work() -> None:
        start_worker_on(core)
        sender.send(function(*arguments))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def fastest_rounds(clips: Clips, count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """(CPU seconds, wall-clock seconds) per clip, of each contestant's fastest round of `count` clips."""
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    makers = contestants(clips)
    for _ in range(rounds):
        for name, make in makers.items():
            make(0)  # brings its code and data back into the caches
            cpu, clock = time.process_time(), time.perf_counter()
            for i in range(count):
                make(i)
            times[name].append(((time.process_time() - cpu) / count, (time.perf_counter() - clock) / count))
    return {name: (min(cpu for cpu, _ in found), min(clock for _, clock in found)) for name, found in times.items()}


STAGES = {  # the functions that are timed; the time of an inner one does not count for the outer one
    "read, decode": (FrameFolder, "read"),
    "crop, resize": (transforms, "_resize"),
    "jitter": (transforms, "jitter_and_blur"),
    "RandAugment": (transforms, "apply_random_operations"),
    "blur": (colour, "blur"),
}


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    """Yields a dictionary that collects the CPU seconds of each stage, within the `with` block."""
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
    """CPU seconds per clip of each recipe's stages, in the fastest round; "rest" is outside of all stages."""
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
    """(clips per wall-clock second, the workers' CPU seconds per clip) of a loader with jitter and blur."""
    dataset, cores = clips.dataset("jitter and blur"), sorted(os.sched_getaffinity(0))
    keys = [(i % len(dataset), i // len(dataset)) for i in range(count)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=keys,
        num_workers=workers,
        worker_init_fn=lambda worker: start_worker_on(cores[worker % len(cores)]),
    )
    batches = iter(loader)
    for _ in range(workers):  # when the first batch of each has arrived, all have started
        next(batches)
    began = time.perf_counter()
    done = sum(len(labels) for _, labels, _ in batches)
    clock = time.perf_counter() - began
    del batches
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done / clock, (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / count


def memory_over_samples(clips: Clips, samples: int) -> dict[int, float]:
    """A worker's private memory in MiB, by the number of samples that it has made with jitter and blur."""
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


# ---- Report, as lines of Markdown ------------------------------------------------------------------------------------


def report(clips: Clips, options: argparse.Namespace) -> Iterator[str]:
    """Measures and yields each line as soon as it is known."""
    core = sorted(os.sched_getaffinity(0))[-1]
    yield (
        f"One core, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, torchvision "
        f"{torchvision.__version__}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}; {len(clips.videos())} videos "
        f"{options.source}, {clips.frames} frames to {clips.crop} x {clips.crop} float32; fastest of {options.rounds} "
        f"rounds of {options.clips} clips."
    )
    yield from report_speed(in_worker(core, fastest_rounds, clips, options.clips, options.rounds))
    yield from report_stages(in_worker(core, time_by_stage, clips, options.clips, options.rounds))
    yield from report_agreement(clips, 20 * options.clips)
    yield from report_workers(clips, options.workers, 8 * options.clips)
    memory = in_worker(core, memory_over_samples, clips, options.samples)
    yield from ("", "Private memory of a worker in MiB, after that many samples with jitter and blur:", "")
    yield ", ".join(f"{samples}: {size:.0f}" for samples, size in memory.items())


def report_speed(times: dict[str, tuple[float, float]]) -> Iterator[str]:
    yield from ("", "Clips per second of one worker: per second of CPU time, and by the clock of a shared machine.", "")
    yield "| recipe | CPU | clock | Pillow, CPU | Pillow, clock | speedup over Pillow (CPU) | of decoding alone |"
    yield "|---|---|---|---|---|---|---|"
    limit, clock = times["decoding alone"]
    yield f"| decoding alone (cv2.imdecode) | {1 / limit:.0f} | {1 / clock:.0f} | | | | |"
    for recipe in RECIPES:
        (cpu, clock), (other, other_clock) = times[recipe], times[f"{recipe}, Pillow"]
        yield (
            f"| {recipe} | {1 / cpu:.0f} | {1 / clock:.0f} | {1 / other:.1f} | {1 / other_clock:.1f} | "
            f"{other / cpu:.1f} | {100 * limit / cpu:.0f} % |"
        )


def report_stages(stages: dict[str, dict[str, float]]) -> Iterator[str]:
    columns = [*STAGES, "rest", "collate", "normalise (on the device)"]
    yield from ("", "Where the time goes: CPU milliseconds per clip.", "")
    yield f"| recipe | {' | '.join(columns)} |"
    yield "|---" * (len(columns) + 1) + "|"
    for recipe, spent in stages.items():
        cells = [f"{1e3 * spent[stage]:.2f}" if stage in spent else "" for stage in columns]
        yield f"| {recipe} | {' | '.join(cells)} |"


def report_agreement(clips: Clips, frames: int) -> Iterator[str]:
    yield from ("", f"Grey levels of {frames} frames compared with Pillow's, with the same random draws.", "")
    yield "| recipe | mean | Pillow's | deviation | Pillow's | mean difference of a value |"
    yield "|---|---|---|---|---|---|"
    for recipe, (mean, deviation, other_mean, other_deviation, difference) in agreement(clips, frames).items():
        levels = f"{mean:.1f} | {other_mean:.1f} | {deviation:.1f} | {other_deviation:.1f}"
        yield f"| {recipe} | {levels} | {difference:.2f} |"


def report_workers(clips: Clips, numbers: list[int], count: int) -> Iterator[str]:
    yield from (
        "",
        "A loader with jitter and blur. Each worker shares its core with the process that receives the batches.",
        "",
    )
    yield "| workers | clips/s by the clock | CPU ms per clip in the workers, their start included |"
    yield "|---|---|---|"
    for workers in numbers:
        speed, cpu = with_workers(clips, workers, count)
        yield f"| {workers} | {speed:.0f} | {1e3 * cpu:.1f} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=Path, help="a folder of videos as frames; default: drawn ones")
    parser.add_argument("--clips", type=int, default=48, help="per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, default=10_000, help="for the memory of a worker (default: %(default)s)")
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
