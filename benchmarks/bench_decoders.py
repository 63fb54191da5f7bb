"""How much CPU time a clip takes from videos and from frames, in one process on one core.

    python -m benchmarks.bench_decoders [--out FILE.md]

Clips are 16 frames, 4 apart, at random places of videos of 10 seconds, 340 x 256, H.264 with B-frames; once with a key
frame each 12 frames, once each 250. In each round all contestants read the same clips. The ratios are the medians of
those of the rounds. The command ffmpeg encodes the videos. PyAV and decord take part where they are installed; both
seek by themselves, and their frames are not compared with OpenCV's.
"""

import argparse
import importlib
import os
import platform
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.bench_loader import in_worker
from benchmarks.pictures import natural_clip
from datasets import FrameFolder
from datasets.decoders import describe_decoder
from datasets.video_files import VideoFiles

RATE, STEP = 25, 4
Read = Callable[[str, Sequence[int]], object]


def write_videos(folder: Path, videos: int, frames: int, size: tuple[int, int], distances: Sequence[int]) -> None:
    """Draws videos, and writes each with each key-frame distance and as JPEG frames of quality 95."""
    width, height = size
    command = f"ffmpeg -v error -y -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {RATE} -i -".split()
    for video in range(videos):
        clip = natural_clip(frames, height, width, seed=video)
        (folder / f"frames/{video}").mkdir(parents=True)
        for number, frame in enumerate(clip, start=1):
            data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            (folder / f"frames/{video}/{number:05d}.jpg").write_bytes(data.tobytes())
        for distance in distances:
            options = f"-c:v libx264 -pix_fmt yuv420p -bf 3 -g {distance} -keyint_min {distance}".split()
            file = folder / f"{distance}-{video}.mp4"
            subprocess.run([*command, *options, str(file)], input=clip.tobytes(), check=True)


def read_by_av(folder: Path) -> Read | None:
    """PyAV, as its pages say: to the key frame before the first frame, then frame by frame."""
    try:
        av = importlib.import_module("av")
    except ImportError:
        return None

    def read(name: str, positions: Sequence[int]) -> object:
        found, wanted = [], set(positions)
        with av.open(str(folder / name)) as container:
            stream = container.streams.video[0]
            stream.thread_count = 1
            container.seek(int(positions[0] / RATE / stream.time_base), stream=stream)
            for frame in container.decode(stream):
                position = round(float(frame.pts * stream.time_base) * RATE)
                if position in wanted:
                    found.append(frame.to_ndarray(format="rgb24"))
                if position >= positions[-1]:
                    break
        return np.stack(found)

    return read


def read_by_decord(folder: Path) -> Read | None:
    try:
        decord = importlib.import_module("decord")
    except ImportError:
        return None
    return lambda name, positions: (
        decord.VideoReader(str(folder / name), num_threads=1).get_batch(list(positions)).asnumpy()
    )


def contestants(folder: Path) -> dict[str, Read]:
    found: dict[str, Read | None] = {
        "VIDEO, opencv": VideoFiles(folder, decoder="opencv").read,
        "VIDEO, torchcodec": VideoFiles(folder, decoder="torchcodec").read,
        "PyAV": read_by_av(folder),
        "decord": read_by_decord(folder),
    }
    return {name: read for name, read in found.items() if read}


def measure(folder: Path, distance: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """CPU seconds of a clip in each round, by contestant."""
    times: dict[str, list[float]] = defaultdict(list)
    frames = FrameFolder(folder / "frames")
    random = np.random.default_rng(0)
    readers = contestants(folder)
    for _ in range(options.rounds):
        starts = random.integers(0, options.frames - options.length * STEP, options.clips)
        for name, read in [*readers.items(), ("FRAME", frames.read)]:
            began = time.process_time()
            for number, start in enumerate(starts.tolist()):
                video = f"{number % options.videos}"
                positions = range(start, start + options.length * STEP, STEP)
                read(video if name == "FRAME" else f"{distance}-{video}.mp4", positions)
            times[name].append((time.process_time() - began) / options.clips)
    return dict(times)


def report(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    """Measures, and yields each line as soon as it is known."""
    core = sorted(os.sched_getaffinity(0))[-1]
    (model,) = {
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    }
    versions = ", ".join(f"{name} {_version(name)}" for name in ("av", "decord") if _version(name))
    width, height = options.size
    yield (
        f"{date.today()}, {options.machine or platform.machine()}, {model}, one core; torch {torch.__version__}, "
        f"OpenCV {cv2.__version__}, {describe_decoder('auto', 'cpu')}{', ' if versions else ''}{versions}. "
        f"{options.videos} drawn videos of {options.frames} frames, {width} x {height}; clips of {options.length} "
        f"frames, {STEP} apart, at random places; medians of {options.rounds} rounds of {options.clips} clips."
    )
    for distance in options.distances:
        times = in_worker(core, measure, folder, distance, options)
        yield from ("", f"A key frame each {distance} frames:", "")
        yield "| reads | CPU ms a clip | lowest, highest round | clips for one of VIDEO, opencv |"
        yield "|---|---|---|---|"
        base = times["VIDEO, opencv"]
        for name, of_rounds in times.items():
            low, high = 1e3 * min(of_rounds), 1e3 * max(of_rounds)
            ratio = median(other / own for other, own in zip(base, of_rounds, strict=True))
            yield f"| {name} | {1e3 * median(of_rounds):.1f} | {low:.1f}, {high:.1f} | {ratio:.2f} |"


def _version(name: str) -> Any:
    try:
        return getattr(importlib.import_module(name), "__version__", "")
    except ImportError:
        return ""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=6, help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=250, help="of a video (default: %(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=[340, 256], help="of a frame (default: 340 256)")
    parser.add_argument("--length", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--distances", type=int, nargs="+", default=[12, 250], help="of key frames (default: 12 250)")
    parser.add_argument("--clips", type=int, default=12, help="per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    parser.add_argument("--machine", default="", help="a word about the machine, such as: shared with other work")
    parser.add_argument("--out", type=Path, help="write the report here too, as Markdown")
    options = parser.parse_args(arguments)
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_videos(Path(folder), options.videos, options.frames, options.size, options.distances)
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            parser.exit(2, f"error: the command ffmpeg, with libx264, is needed to encode the videos: {error}\n")
        for line in report(Path(folder), options):
            print(line, flush=True)
            lines.append(line)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
