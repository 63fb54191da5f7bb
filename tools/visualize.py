"""Draw what a network looks at in a video: the paper's figure 5, a film, or a page.

    python -m tools.visualize VIDEO --checkpoint RUN [--query X,Y] [--frame T]
    python -m tools.visualize VIDEO --checkpoint RUN --out clip.mp4
    python -m tools.visualize VIDEO --checkpoint RUN --html

A query is a position in frame t; SIFA samples frame t+1 for it. The picture
shows both frames: the sampled points coloured by their attention weights, in
one block and through several; the motion saliency; how the predicted offsets
move the neighbourhoods; and what speaks for the class (Grad-CAM). A frame t of
the network is made of four frames of the clip, the third of which is drawn.
Exit code: 0, or 2 after an error.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

import sifa
from common import cli
from common.errors import UserError, shown_name
from datasets.video_files import frame_rate, open_video
from models.temporal import STAGES
from sifa.export import SMALLEST_CROP
from sifa.picture_files import check_writable, write_film, write_picture
from sifa.predictor import Predictor
from sifa.video_stream import check_video
from sifa.viewer import ArgumentError, Viewer


def main(argv: Sequence[str] | None = None) -> int:
    options = _parse(argv)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the command prints its own error
    return cli.run(lambda: visualize(options))


def visualize(options: argparse.Namespace) -> None:
    """Writes the picture, film or page and prints its name."""
    check_video(options.video)
    predictor = sifa.load(options.checkpoint, device=options.device, num_clips=1, num_crops=1)
    if not predictor.model.stages_with_sifa():
        raise UserError(f"checkpoint {options.checkpoint} has a network without SIFA")
    try:
        write(make_viewer(predictor, options), options)
    except ArgumentError as error:  # the arguments have the names of the options
        raise UserError(f"--{error}") from None
    cli.say(shown_name(options.out))


def make_viewer(predictor: Predictor, options: argparse.Namespace) -> Viewer:
    return Viewer(
        predictor,
        options.video,
        stage=options.stage,
        label=_label(predictor, options.label),
        blocks=options.blocks,
        crop_size=options.crop_size,
        gamma=options.gamma,
    )


def write(viewer: Viewer, options: argparse.Namespace) -> None:
    """Draws what the options ask for and writes it to the file of --out."""
    check_writable(options.out)
    if options.out.suffix == ".mp4":
        moments, step = viewer.moments()
        with open_video(options.video) as capture:
            rate = frame_rate(capture) / step
        progress = tqdm(moments, unit="picture", disable=None)
        write_film(options.out, (viewer.picture(start, t, options.query) for start, t in progress), rate)
        return
    start, t = viewer.strongest_moment() if options.frame is None else viewer.moment_of(options.frame)
    if viewer.is_still(start, t):
        print("hardly any motion between the two frames: points and offsets follow little", file=sys.stderr)
    if options.html:
        stages = [options.stage] if options.stage else None
        options.out.write_text(viewer.page(start, t, options.query, stages), encoding="utf-8")
    else:
        write_picture(options.out, viewer.picture(start, t, options.query))


def _label(predictor: Predictor, name: str | None) -> int | None:
    """The number of the class of --class."""
    classes = predictor.classes
    if name is None or name in classes:
        return None if name is None else classes.index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise UserError(f"--class must be one of {', '.join(classes[:20])}, or a number below {len(classes)}")


def _query(text: str) -> tuple[float, float]:
    try:
        x, y = text.split(",")
        return float(x), float(y)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be two numbers X,Y, got {text!r}") from None


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.visualize", __doc__, usage="VIDEO --checkpoint RUN [...]")
    parser.add_argument("video", type=Path, metavar="VIDEO")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN", help="folder of a run, or its file")
    parser.add_argument("--query", type=_query, metavar="X,Y", help="pixels of VIDEO (default: the strongest motion)")
    parser.add_argument("--frame", type=int, metavar="T", help="of VIDEO, as frame t (default: the strongest motion)")
    parser.add_argument("--stage", choices=STAGES, help="default: the last one with fine maps; --html: all")
    parser.add_argument("--blocks", type=int, default=3, metavar="N", help="that points go through (default: 3)")
    parser.add_argument("--class", dest="label", metavar="NAME", help="for Grad-CAM (default: the predicted class)")
    parser.add_argument("--out", type=Path, help="NAME.png, or .mp4 for the whole video (default: by VIDEO's name)")
    parser.add_argument("--html", action="store_true", help="one self-contained page instead of a picture")
    parser.add_argument("--crop_size", type=int, metavar="N", help="pixels that the network sees; more give finer maps")
    parser.add_argument("--gamma", type=float, default=1.0, metavar="N", help="below 1 draws dark videos brighter")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(argv)
    suffix = ".html" if options.html else ".png"
    if options.out is None:
        # An existing file of this name may belong to a video of another folder: it stays.
        stem = options.video.absolute().stem or "picture"  # of the folder `.` too, which is refused later by its kind
        names = (Path(f"{stem}{number}{suffix}") for number in chain([""], (f"-{i}" for i in count(2))))
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
