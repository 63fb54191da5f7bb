"""What a clip costs in each storage format: read and decoded, and its bytes alone.

    python -m benchmarks.bench_storage [--videos 24] [--rounds 15] [--out FILE.md]

One process on one core. The formats take turns within each round, on the same clips (16 frames, 4 apart, 340 x 256),
and each is compared with FRAME in the same round; the table has the median of these ratios. CPU time, because other
work on a shared machine disturbs it least. All files are in the page cache: a disk or a network is not measured.
"""

import argparse
import os
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import cv2

from benchmarks.pictures import natural_clip
from common import cli
from datasets import Reader, ReaderOptions, open_reader
from datasets.preparation.batch_extraction import ExtractionOptions, extract_dataset
from datasets.readers import Format

FORMATS: tuple[Format, ...] = ("FRAME", "LMDB", "PACKED", "SHARDS")
FRAMES, APART, SIZE = 16, 4, (256, 340)  # of a clip; height and width of a frame


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def draw_videos(folder: Path, videos: int, length: int) -> None:
    """Writes videos as folders of JPEG frames, of which each is shown four times."""
    for video in range(videos):
        (folder / f"{video:03d}").mkdir(parents=True)
        for number, frame in enumerate(natural_clip(length // APART, *SIZE, seed=video)):
            data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            for repeat in range(APART):
                (folder / f"{video:03d}" / f"{number * APART + repeat + 1:05d}.jpg").write_bytes(data)


def store(folder: Path, videos: int) -> None:
    """Stores the frames below folder / "FRAME" in the other formats."""
    labels = folder / "labels.csv"
    labels.write_text("".join(f"{video:03d};a\n" for video in range(videos)))
    for format in FORMATS[1:]:
        options = ExtractionOptions(
            video_dir=folder / "FRAME",
            out_dir=folder / format,
            list_file=folder / f"{format}.txt",
            labels=labels,
            format=format,
            shard_gb=0.02,
        )
        extract_dataset(options)


def read_bytes(reader: Reader, video: str, positions: list[int]) -> None:
    for position in positions:
        reader.fingerprint(video, position)


def measure(readers: dict[str, Reader], videos: int, length: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """CPU seconds of a clip in each round, by what is done and by reader."""
    draw = random.Random(0)
    actions: dict[str, Callable] = {"decoded": lambda reader, *clip: reader.read(*clip), "bytes alone": read_bytes}
    found: dict[str, dict[str, list[float]]] = {action: defaultdict(list) for action in actions}
    for _ in range(rounds):
        starts = [draw.randrange(length - FRAMES * APART + 1) for _ in range(videos)]
        order = draw.sample(range(videos), videos)
        clips = [(f"{video:03d}", list(range(starts[video], length, APART))[:FRAMES]) for video in order]
        for action, call in actions.items():
            for name in draw.sample(list(readers), len(readers)):
                began = time.process_time()
                for clip in clips:
                    call(readers[name], *clip)
                found[action][name].append((time.process_time() - began) / videos)
    return found


def report(found: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    for action, seconds in found.items():
        yield from ("", f"{action}, CPU time of a clip:", "", "| format | ms, median | over FRAME |", "|---|---|---|")
        for name, times in sorted(seconds.items()):
            ratio = median(one / other for one, other in zip(times, seconds["FRAME"], strict=True))
            yield f"| {name} | {1e3 * median(times):.2f} | {ratio:.3f} |"


def downloads(url: str, cache: Path, folder: Path) -> str:
    """A line about the first time that shards are read over the loopback address."""
    reader = open_reader("SHARDS", url, ReaderOptions(shard_cache=str(cache)))
    size = sum(file.stat().st_size for file in (folder / "SHARDS").glob("*.tar"))
    began = time.process_time()
    for line in (folder / "SHARDS.txt").read_text().splitlines():
        reader.fingerprint(line.split()[0], 0)
    spent = time.process_time() - began
    return f"downloads, SHA-256 and server of {size / 1e6:.0f} MB: {size / 1e6 / spent:.0f} MB per second of CPU time"


def _measure_in(folder: Path, args: argparse.Namespace) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(0)
    draw_videos(folder / "FRAME", args.videos, args.length)
    store(folder, args.videos)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder / "SHARDS"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        first = downloads(url, folder / "cache", folder)
        readers: dict[str, Reader] = {format: open_reader(format, folder / format) for format in FORMATS}
        readers["SHARDS of a URL, in the cache"] = open_reader(
            "SHARDS", url, ReaderOptions(shard_cache=str(folder / "cache"))
        )
        lines = [*report(measure(readers, args.videos, args.length, args.rounds)), "", first]
        server.shutdown()
    print("\n".join(lines))
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser("python -m benchmarks.bench_storage", __doc__)
    parser.add_argument("--videos", type=int, default=24, help="(default: %(default)s)")
    parser.add_argument("--length", type=int, default=240, help="frames of a video (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the report here too, as Markdown")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return cli.run(lambda: _measure_in(Path(folder), args))


if __name__ == "__main__":
    raise SystemExit(main())
