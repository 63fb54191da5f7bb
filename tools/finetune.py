"""Teach a trained network classes of your own: videos in, a checkpoint and a report out.

    python -m tools.finetune VIDEO_FOLDER --checkpoint output/demo/checkpoints/last.pth

Classes are the sub-folders of VIDEO_FOLDER with videos, numbers like any names, or what --labels says. A quarter of
each class's videos is kept to validate on. Videos that were cut from one recording are alike and stay together: file
names that differ in the number at their end count as one recording, unless --group says otherwise. The network starts
with the checkpoint's weights and a new classifier (the checkpoint's if the classes have the very same names), which is
trained alone at first, and then with all the rest.

Options are checked first, then frames are extracted, then those videos are split that can be read.

OUT (by default output/ and the folder's name) gets frames, lists and class names, videos.csv with the split,
settings.yml, which train_val_3d.py takes as any, and the run: checkpoints/last.pth, config.yml, log.txt, scores.npz,
report.html. Whenever it is stopped, the same command goes on.

Exit code: 0; 2 if something is wrong; 130 if interrupted.
"""

import argparse
import csv
import io
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import yaml

import sifa
import train_val_3d
from common.errors import DataError, UserError
from common.files import make_folder, write_text
from datasets.annotations import Video, format_classes, read_list
from datasets.preparation.labels import sources_from_labels
from datasets.preparation.sources import Source, frame_folders, sources_from_folders
from datasets.preparation.splits import choose_validation, recordings
from engine.config import load_config
from engine.schema import Config
from engine.scores import load_scores
from sifa.predictor import Predictor
from sifa.report import write_report
from tools import extract_frames
from visualization.score_summary import confusion_table

RECIPE = Path(__file__).resolve().parents[1] / "settings/finetune.yml"
CLASSIFIERS = ("fc", "fc_dual")
ITERATIONS, EPOCHS = 1000, (20, 100)  # of the whole training: as many epochs as make the one, within the other
SPAN, LONGEST_SPAN = 2 / 3, 64  # of a clip: a share of the median training video; frames
SIDES = re.compile(r"left|right|clockwise", re.IGNORECASE)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = _parse(argv)
    try:
        return finetune(args, args.out or Path("output") / args.video_dir.resolve().name)
    except (UserError, DataError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def finetune(args: argparse.Namespace, out: Path) -> int:
    """Everything, step by step; returns the exit code."""
    if args.epochs is not None and args.epochs < 1:
        raise UserError(f"--epochs must be at least 1, got {args.epochs}")
    start = sifa.load(args.checkpoint)
    videos = find_videos(args.video_dir, args.labels)
    names = class_names(videos)
    trained = (out / "checkpoints/last.pth").is_file()
    # A mistake of the options must end here, not after the extraction. How long the videos are is not known yet.
    planned, _ = split(videos, args)
    check_settings(settings(args, out, start, names, [LONGEST_SPAN for row in planned if row.split == "train"]), args)
    make_folder(out)
    if trained:
        check_same_videos(out / "videos.csv", videos)
    _write_once(out / "classes.txt", format_classes(names), trained)

    frames = extract(args, out, start.config, videos)
    if lost := sorted(set(names) - {video.label for video in videos if video.path in frames}):
        raise DataError(f"no video of the class {lost[0]!r} can be read")
    rows, untold = split([video for video in videos if video.path in frames], args)
    show_split(rows, untold)
    if skipped := [Row(video.path, video.label, "", "skipped") for video in videos if video.path not in frames]:
        print(f"{len(skipped)} of {len(videos)} videos cannot be read; {out / 'videos.report.tsv'} says why")
    _write_once(out / "videos.csv", _csv([*rows, *skipped]), trained)
    sides = {side: [frames[row.path] for row in rows if row.split == side] for side in ("train", "val")}
    for side, listed in sides.items():
        lines = [f"{video.path} {video.num_frames} {video.label}\n" for video in listed]
        write_text(out / f"{side}.txt", "".join(lines))
    lengths = [video.num_frames for video in sides["train"]]
    _write_once(out / "settings.yml", settings(args, out, start, names, lengths), trained)
    if named := sided(names):
        print(f"The class {named[0]!r} seems to tell left from right: clips are not flipped.")

    run = [f"--config_file={out / 'settings.yml'}", *(["--set", *args.set] if args.set else [])]
    print(f"training: python train_val_3d.py {' '.join(run)} --resume auto")
    if code := train_val_3d.main([*run, "--resume=auto"]):
        return code
    checkpoint = out / "checkpoints/last.pth"
    if code := train_val_3d.main([*run, "--test", f"--checkpoint={checkpoint}"]):
        return code
    scores = load_scores(out / "scores.npz")
    print(confusion_table(scores))
    print(f"report: {write_report(scores, out)}")
    print(f"checkpoint: {checkpoint}")
    return 0


# ---- Videos and their split -----------------------------------------------------------------------------------------


def find_videos(video_dir: Path, labels: Path | None) -> list[Source]:
    """The videos of at least two classes. Raises DataError for anything else."""
    if not video_dir.is_dir():
        raise DataError(f"VIDEO_FOLDER must be a folder, {video_dir} is none")
    try:
        videos = sources_from_labels(labels, video_dir) if labels else sources_from_folders(video_dir)
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}") from None
    names = sorted({video.label for video in videos})
    if len(names) < 2:
        raise DataError(f"there must be videos of two classes at least, {video_dir} has only {names[0]!r}")
    if {name.lower() for name in names} <= {"train", "val", "valid", "validation", "test"}:
        raise DataError(
            f"the sub-folders of {video_dir} must be classes, they are {', '.join(names)}: put the videos of a class "
            "into one folder, and say by --group and --validate which are to be validated on"
        )
    return videos


def class_names(videos: Sequence[Source]) -> list[str]:
    """The classes that occur, sorted. Folders 1, 2, 3 are three classes: here nothing lacks a 0."""
    names = {video.label for video in videos}
    numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))


class Row(NamedTuple):
    """A video's line of videos.csv; split is train, val or skipped."""

    path: str
    label: str
    recording: str
    split: str


def split(videos: Sequence[Source], args: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """The side of each video, and the classes whose file names tell no recordings.

    Raises:
        DataError: the options name no such recording, or leave nothing on one side.
    """
    recording_of, untold = recordings(videos, args.group)
    if args.validate:
        validation = set(args.validate.split(","))
        if unknown := sorted(validation - set(recording_of.values())):
            known = sorted(set(recording_of.values()))
            raise DataError(
                f"--validate: there is no recording {unknown[0]!r}; there are {len(known)}: {', '.join(known[:8])}"
            )
    else:
        validation = choose_validation(videos, recording_of, args.share, seed=args.seed)
    side = {video.path: "val" if recording_of[video.path] in validation else "train" for video in videos}
    rows = [Row(video.path, video.label, recording_of[video.path], side[video.path]) for video in videos]
    if lacking := sorted({row.label for row in rows} - {row.label for row in rows if row.split == "train"}):
        raise DataError(f"all videos of {lacking[0]!r} are kept for the validation, none is left to train on")
    if "val" not in side.values():
        raise DataError("nothing is left to validate on: every class has a single recording; is --group right?")
    return rows, untold


def show_split(rows: Sequence[Row], untold: Sequence[str]) -> None:
    """Prints how many videos of each class are on which side."""
    if untold:
        print(
            f"The file names of {', '.join(untold)} tell no recordings: each video counts as one. If clips of one "
            "recording are among them, say how to tell by --group, or the validation flatters."
        )
    print(f"{'class':<24}{'train':>7}{'val':>5}{'recordings':>12}")
    for label in sorted({row.label for row in rows}):
        counts = Counter(row.split for row in rows if row.label == label)
        many = len({row.recording for row in rows if row.label == label})
        problem = "  of a single recording: nothing to validate on" if many == 1 else ""
        print(f"{label:<24}{counts['train']:>7}{counts['val']:>5}{many:>12}{problem}")


def check_same_videos(table: Path, videos: Sequence[Source]) -> None:
    """Raises UserError if a training that has begun, whose videos.csv this is, is of other videos."""
    if table.is_file():
        with table.open(encoding="utf-8", newline="") as stream:
            known = {(row["path"], row["label"]) for row in csv.DictReader(stream)}
        if known != {(video.path, video.label) for video in videos}:
            raise _of_another_training(table)


def extract(args: argparse.Namespace, out: Path, start: Config, videos: Sequence[Source]) -> dict[str, Video]:
    """The frames of all videos; those that can be read, by the path of the video.

    Raises:
        DataError: none can be read, or the frames cannot be written.
    """
    short_side = round(max(start.transform.crop_size, start.evaluation.eva_crop_size) * 8 / 7)
    file = out / "videos.txt"
    file.unlink(missing_ok=True)
    command = [str(args.video_dir), str(out / "frames"), f"--list={file}", f"--classes={out / 'classes.txt'}"]
    options = [f"--short_side={short_side}", f"--format={args.format}"]
    code = extract_frames.main([*command, *options, *([f"--labels={args.labels}"] if args.labels else [])])
    if code == 130:
        raise KeyboardInterrupt
    if code == 2:
        raise DataError("the frames could not be extracted, see the line above")
    if not file.is_file():
        raise DataError(f"no video of {args.video_dir} can be read")
    folders = frame_folders(videos)
    listed = {video.path: video for video in read_list(file, num_classes=len({video.label for video in videos}))}
    return {path: listed[folder] for path, folder in folders.items() if folder in listed}


# ---- Settings -------------------------------------------------------------------------------------------------------


def settings(
    args: argparse.Namespace, out: Path, checkpoint: Predictor, names: Sequence[str], lengths: Sequence[int]
) -> str:
    """settings.yml: the recipe, with the checkpoint's network and clips and these videos.

    Args:
        names: of the classes.
        lengths: frames of each training video.
    """
    out = out.absolute()  # a settings file is used from other folders, too
    network, start = checkpoint.model, checkpoint.config
    batch = min(8, len(lengths))
    epochs = args.epochs or min(max(round(ITERATIONS / (len(lengths) // batch)), EPOCHS[0]), EPOCHS[1])
    # A checkpoint's own step is of other videos, of another speed and length.
    span = min(SPAN * median(lengths), LONGEST_SPAN)
    steps = max(1, round(span / start.dataset.num_segments / start.dataset.clip_length))
    body = [f"{name}.*" for name, _ in network.named_children() if name not in CLASSIFIERS]
    body = [pattern for pattern in body if any(True for _ in getattr(network, pattern[:-2]).parameters())]
    crop = {"crop_size": start.transform.crop_size}
    if sided(names):
        crop["horizontal_flip"] = False
    others = {"pretrained_model", "imagenet_weights", "release_weights", "dropout_ratio"}
    values: dict[str, Any] = {
        "base": str(RECIPE),  # not relative: OUT may be behind a symbolic link
        "output_dir": str(out),
        "dataset": {
            "name": args.video_dir.resolve().name,
            "root_path": str(out / "frames"),
            "list_file": str(out / "train.txt"),
            "eva_list_file": str(out / "val.txt"),
            "classes_file": str(out / "classes.txt"),
            "num_classes": len(names),
            "format": args.format,
            **start.dataset.model_dump(include={"num_segments", "clip_length"}),
            "num_steps": steps,
            "num_workers": max(1, min((os.cpu_count() or 1) - 1, 8)),
        },
        "transform": crop,
        "evaluation": {"eva_crop_size": start.evaluation.eva_crop_size},
        "network": start.network.model_dump(exclude=others) | {"pretrained_model": str(args.checkpoint.absolute())},
        "SIFA": start.SIFA.model_dump(),
        "optimization": {"epochs": epochs, "batch_size": batch, "freeze": body, "freeze_epochs": max(1, epochs // 10)},
    }
    if epochs == 1:  # the recipe's warm-up alone would take it
        values["optimization"]["warmup_epoch"] = 0
    return f"# Written by tools/finetune.py.\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}"


def sided(names: Sequence[str]) -> list[str]:
    """The classes that a flip would make another's."""
    return [name for name in names if SIDES.search(name)]


def check_settings(text: str, args: argparse.Namespace) -> None:
    """Raises ConfigError if settings and --set make no configuration."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yml"
        write_text(file, text)
        load_config(file, args.set)


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Row._fields, *rows])
    return text.getvalue()


def _write_once(file: Path, text: str, trained: bool) -> None:
    """Writes a file that a training depends on; of one that has begun it must be what it was."""
    if trained and file.is_file() and file.read_text(encoding="utf-8") != text:
        raise _of_another_training(file)
    try:
        write_text(file, text)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}") from None


def _of_another_training(file: Path) -> UserError:
    return UserError(
        f"{file.parent} holds a training of other videos or options ({file.name} would change): give another "
        f"--out, or remove {file.parent / 'checkpoints'} to train anew"
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="finetune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    group = "what names a video's recording: a column of --labels, or a regular expression for the file name"
    parser.add_argument("video_dir", type=Path, metavar="VIDEO_FOLDER")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of train_val_3d.py, to start from")
    parser.add_argument("--out", type=Path, help="folder (default: output/ and the name of VIDEO_FOLDER)")
    parser.add_argument("--labels", type=Path, help="CSV file with the columns path and label, instead of sub-folders")
    parser.add_argument("--group", default="", metavar="COLUMN|REGEX", help=group)
    parser.add_argument("--validate", default="", metavar="A,B", help="recordings to validate on (default: chosen)")
    parser.add_argument("--share", type=float, default=0.25, help="to validate on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="(default: by the number of videos)")
    parser.add_argument("--format", choices=("FRAME", "PACKED"), default="FRAME", help="of the frames (docs/data.md)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="section.key=value", help="as train_val_3d.py"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
