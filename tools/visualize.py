"""Draw what a network looks at in a video: the paper's figure 5 as a picture, a film, or a page to explore.

    python -m tools.visualize VIDEO --checkpoint FILE [--query X,Y] [--frame T] [--stage res4]
    python -m tools.visualize VIDEO --checkpoint FILE --out clip.mp4
    python -m tools.visualize VIDEO --checkpoint FILE --html

A query is a place in frame t; SIFA samples frame t+1 for it. The picture shows both, the sampled points coloured by
their attention weights, in one block and through several on top of each other; what moves (motion saliency); where the
predicted offsets move the neighbourhoods; and what speaks for the class (Grad-CAM). A frame t of the network is made of
four of the clip, the third of which is drawn. Exit code: 0, or 2 if something is wrong.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

import sifa
from common.errors import DataError, UserError
from datasets import test_positions
from datasets.video_files import VideoFiles, opened
from models.network import STEM_CENTRE, STEM_FRAMES
from models.temporal import STAGES
from sifa.predictor import Predictor, count_frames
from tools.export import SMALLEST_CROP
from tools.predict import frame_rate
from visualization import Explanation, Moment, draw, explain, html_page

_SHARPEST = 512  # pixels of a drawn frame's short side


@dataclass(frozen=True)
class Clip:
    """A clip of a video: uint8 (T, H, W, 3), RGB, and which frames of the video these are, 0-based."""

    frames: np.ndarray
    positions: list[int]

    @property
    def shown(self) -> list[int]:
        """Which frame of the video stands for each of the network's."""
        return self.positions[STEM_CENTRE::STEM_FRAMES]


class Viewer:
    """A network, a video and how to draw them."""

    def __init__(self, loaded: Predictor, options: argparse.Namespace) -> None:
        self.loaded, self.video = loaded, options.video
        self.num_frames = count_frames(self.video)
        self.reader = VideoFiles(self.video.parent)
        self.size = loaded.size if options.crop_size is None else options.crop_size
        self.gamma = options.gamma
        self.label = _label(loaded, options.label)
        self.blocks: int = options.blocks
        stages = loaded.model.stages_with_sifa()
        if not stages:
            raise UserError(f"checkpoint {options.checkpoint} has a network without SIFA")
        if loaded.frames < 2 * STEM_FRAMES:
            raise UserError(f"a clip of {loaded.frames} frames is one frame to the network: SIFA has no next one")
        self.stage: str = options.stage or ("res4" if "res4" in stages else stages[-1])
        if self.stage not in stages:
            raise UserError(f"--stage {self.stage} of this network has no SIFA; it is in {', '.join(stages)}")

    def starts(self) -> range:
        """The clips that fit: where in the video, or in each of its segments, they start."""
        data = self.loaded.config.dataset
        return range(max(self.num_frames // data.num_segments - data.clip_length * data.num_steps, 1))

    def positions(self, start: int) -> list[int]:
        # The i-th of as many test clips as there is room for starts at i.
        data = self.loaded.config.dataset
        sampling = {"num_segments": data.num_segments, "clip_length": data.clip_length, "num_steps": data.num_steps}
        return test_positions(self.num_frames, **sampling, clip=start, num_clips=len(self.starts()))

    def clip(self, start: int) -> Clip:
        positions = self.positions(start)
        return Clip(self.reader.read(self.video.name, positions), positions)

    def moment_of(self, frame: int) -> tuple[int, int]:
        """Start and pair t whose frame t is nearest to a frame of the video, in the middle of its clip if possible."""
        if not 0 <= frame < self.num_frames:
            raise UserError(f"--frame must be in 0..{self.num_frames - 1}, got {frame}")

        def distance(moment: tuple[int, int]) -> tuple[int, int]:
            start, t = moment
            shown = self.positions(start)[STEM_CENTRE::STEM_FRAMES]
            return abs(shown[t] - frame), abs(2 * t - (len(shown) - 2))

        pairs = range(self.loaded.frames // STEM_FRAMES - 1)
        return min(((start, t) for start in self.starts() for t in pairs), key=distance)

    def explain(self, clip: Clip, stage: str) -> Explanation:
        try:
            crop = self.loaded.normalise(self.loaded.crops(clip.frames, self.size))
            return explain(self.loaded.model, crop, stage, self.label)
        except ValueError as error:
            raise UserError(str(error)) from None

    def shown_frames(self, clip: Clip) -> np.ndarray:
        """The crop of the frames that are drawn, as sharp as they are in the video: uint8 (T', S', S', 3), RGB."""
        sharp = max(self.size, min(*clip.frames.shape[1:3], _SHARPEST))
        frames = self.loaded.crops(clip.frames[STEM_CENTRE::STEM_FRAMES], sharp)[0].numpy()
        brighter = np.round(255 * (np.arange(256) / 255) ** self.gamma).astype(np.uint8)
        return brighter[frames]

    def query(
        self, t: int | None, query: tuple[float, float] | None, clip: Clip, seen: Explanation
    ) -> tuple[int, int, int]:
        """t, y and x of what is asked for, and of the strongest motion where nothing is."""
        t, y, x = seen.strongest_motion(t)
        return (t, *self.position(query, clip, seen)) if query else (t, y, x)

    def position(self, query: tuple[float, float], clip: Clip, seen: Explanation) -> tuple[int, int]:
        """y and x of a query that is given in pixels of the video."""
        height, width = clip.frames.shape[1:3]
        column, row = query
        scale = self.size / min(height, width)
        pixels = [
            (at + 0.5) * scale - 0.5 - (side * scale - self.size) / 2 for at, side in ((row, height), (column, width))
        ]
        if not all(-0.5 <= pixel <= self.size - 0.5 for pixel in pixels):
            side = min(height, width)
            left, top = (width - side) // 2, (height - side) // 2
            raise UserError(
                f"--query must be in the part of the frame that the network sees, x in {left}..{left + side - 1} and y "
                f"in {top}..{top + side - 1}, got {column:g},{row:g}"
            )
        rows, columns = seen.attentions[-1].saliency.shape[1:]
        return seen.grid.nearest(pixels[0], rows), seen.grid.nearest(pixels[1], columns)

    def picture(self, start: int, t: int | None, query: tuple[float, float] | None) -> np.ndarray:
        """Six panels, uint8 (H, W, 3), RGB. t: None for the pair with the strongest motion; query: likewise."""
        clip = self.clip(start)
        seen = self.explain(clip, self.stage)
        t, y, x = self.query(t, query, clip, seen)
        frames = self.shown_frames(clip)
        name = self.loaded.classes[seen.label]
        blocks = min(self.blocks, len(seen.attentions))
        return draw(
            Moment(frames[t], frames[t + 1], self.size, t, y, x),
            seen,
            title=f"{name}  {100 * seen.probability:.1f} %",
            subtitle=f"{self.video.name}: frame t is {clip.shown[t]} of the video, frame t+1 is {clip.shown[t + 1]}; "
            f"{seen.stage}, whose maps are {seen.cam.shape[1]} x {seen.cam.shape[2]}",
            class_name=name,
            blocks=blocks,
        )

    def moments(self) -> tuple[list[tuple[int, int]], int]:
        """Start and pair of every picture of a film, and how many frames of the video are from one to the next.

        The middle pairs of all clips that there are; where a clip takes the whole video, all pairs of one clip.
        """
        pairs, starts = self.loaded.frames // STEM_FRAMES - 1, self.starts()
        if len(starts) >= pairs:
            return [(start, (pairs - 1) // 2) for start in starts], 1
        start = len(starts) // 2
        shown = self.positions(start)[STEM_CENTRE::STEM_FRAMES]
        return [(start, t) for t in range(pairs)], max(shown[1] - shown[0], 1)

    def page(self, start: int, t: int | None, query: tuple[float, float] | None, stages: Sequence[str]) -> str:
        """A page to explore one clip, which opens as `picture` would draw it in the first of the stages."""
        clip = self.clip(start)
        seen = [self.explain(clip, stage) for stage in stages]
        t, y, x = self.query(t, query, clip, seen[0])
        name = self.loaded.classes[seen[0].label]
        title = f"{self.video.name}: {name}  {100 * seen[0].probability:.1f} %"
        return html_page(self.shown_frames(clip), clip.shown, self.size, seen, (t, y, x), title=title, class_name=name)


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # we say in one line what cannot be opened
    try:
        loaded = sifa.load(options.checkpoint, device=options.device, num_clips=1, num_crops=1)
        viewer = Viewer(loaded, options)
        _check_folder(options.out)
        start, t = len(viewer.starts()) // 2, None
        if options.frame is not None:
            start, t = viewer.moment_of(options.frame)
        if options.html:
            stages = [options.stage] if options.stage else loaded.model.stages_with_sifa()
            options.out.write_text(viewer.page(start, t, options.query, stages), encoding="utf-8")
        elif options.out.suffix == ".mp4":
            moments, step = viewer.moments()
            with opened(options.video) as capture:
                rate = frame_rate(capture) / step
            shown = tqdm(moments, unit="picture", disable=None)
            _write_film(options.out, (viewer.picture(start, t, options.query) for start, t in shown), rate)
        else:
            _write_picture(options.out, viewer.picture(start, t, options.query))
        print(options.out)
        return 0
    except (UserError, DataError, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"error: {' '.join(text.split())}", file=sys.stderr)
        return 2


def _check_folder(out: Path) -> None:
    """Makes the folder and opens the file: before anything is computed, and OpenCV does not say why it cannot write.

    Raises:
        OSError: it cannot be.
    """
    there = out.exists()
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(out, "ab"):
        pass
    if not there:
        out.unlink()


def _write_picture(out: Path, picture: np.ndarray) -> None:
    out.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())


def _write_film(out: Path, pictures: Iterator[np.ndarray], rate: float) -> None:
    writer = None
    try:
        for picture in pictures:
            if writer is None:
                size = picture.shape[1], picture.shape[0]
                writer = cv2.VideoWriter(str(out), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
                if not writer.isOpened():
                    raise UserError(f"{out} cannot be written as a video: OpenCV encodes no MPEG-4 here")
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    finally:
        if writer is not None:
            writer.release()


def _label(loaded: Predictor, name: str | None) -> int | None:
    if name is None or name in loaded.classes:
        return None if name is None else loaded.classes.index(name)
    if name.isdecimal() and int(name) < len(loaded.classes):
        return int(name)
    raise UserError(f"--class must be one of {', '.join(loaded.classes[:20])}, or a number below {len(loaded.classes)}")


def _query(text: str) -> tuple[float, float]:
    try:
        x, y = text.split(",")
        return float(x), float(y)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two numbers X,Y, got {text!r}") from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.visualize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train_val_3d.py")
    parser.add_argument(
        "--query", type=_query, metavar="X,Y", help="pixels of the video (default: where the motion is strongest)"
    )
    parser.add_argument(
        "--frame", type=int, metavar="T", help="of the video, to be frame t (default: of the clip in the middle)"
    )
    parser.add_argument("--stage", choices=STAGES, help="default: res4; with --html all that have SIFA")
    parser.add_argument("--blocks", type=int, default=3, help="SIFA blocks on top of each other (default: %(default)s)")
    parser.add_argument("--class", dest="label", metavar="NAME", help="of Grad-CAM (default: the predicted one)")
    parser.add_argument(
        "--out",
        type=Path,
        help="NAME.png, or .mp4 for the whole video (default: VIDEO's name, with a number if there is one)",
    )
    parser.add_argument("--html", action="store_true", help="one self-contained page in place of a picture")
    parser.add_argument("--crop_size", type=int, help="pixels that the network sees; more makes finer maps")
    parser.add_argument("--gamma", type=float, default=1.0, help="below 1 draws dark videos brighter")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    suffix = ".html" if options.html else ".png"
    if options.out is None:
        # What has the name may be of another folder's video: it stays.
        names = (Path(f"{options.video.stem}{number}{suffix}") for number in chain([""], (f"-{i}" for i in count(2))))
        options.out = next(name for name in names if not name.exists())
    wanted = (".html",) if options.html else (".png", ".mp4")
    if options.out.suffix not in wanted:
        parser.error(f"--out must end in {' or '.join(wanted)}, got {options.out}")
    if options.blocks < 1:
        parser.error(f"--blocks must be at least 1, got {options.blocks}")
    if not 0 < options.gamma < math.inf:  # nan is not
        parser.error(f"--gamma must be a number above 0, got {options.gamma:g}")
    if options.crop_size is not None and options.crop_size < SMALLEST_CROP:
        parser.error(f"--crop_size must be at least {SMALLEST_CROP}, got {options.crop_size}")
    return options


if __name__ == "__main__":
    sys.exit(main())
