"""Which temporal module, and which start, for a few hundred short videos? The recipe with each, on the same videos.

    python -m benchmarks.recipe_modules VIDEOS [--seeds 0 1 2 3 4] [--parallel 2] [--out FOLDER] [--runs FOLDER]
    python -m benchmarks.recipe_modules VIDEOS --part scene --parts 0,15 1,2,7 3,4 --group scene --out FOLDER

VIDEOS is a folder of short videos; labels.csv in it has the columns path, label, and one that parts them (--part, such
as repetition). Networks are tested on one part and trained on the other parts, for each part in turn, with
settings/small_videos_sifa.yml, in which SIFA's offsets learn slowly. Nothing but the module differs, and nothing is
chosen here: the recipe was chosen with SIFA, on the letters of AVLetters. With --starts each module is trained from the
weights of a checkpoint, too (python -m benchmarks.drawn_start makes one); what the checkpoint lacks, such as the
convolutions of another module than its own, begins with random weights.

The frames and the runs (a folder for each network, with checkpoints) go to --runs; results.json, with each answer, and
the tables made of it to --out. The same command continues, and leaves alone what is done. On 520 videos a network takes
12 minutes of one core, so five seeds of eight modules both ways take 16 hours of one core.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.kept_results import keep_videos, read_results, write_results
from benchmarks.motion_cells import CONTESTANTS, EVERYONE, OTHER_OPTIONS
from benchmarks.motion_picture import draw
from benchmarks.motion_tables import (
    DRAWN_TOGETHER,
    Answers,
    answers,
    comparison,
    difference_of,
    difference_of_networks,
    gains,
    span,
    verdicts,
)
from benchmarks.recipe_ways import Parts, Way, count_classes, store_ways
from common import cli
from common.errors import UserError
from common.files import digest, make_folder, write_text
from engine.config import as_change, dump_config, load_config
from engine.scores import load_scores
from sifa.flat_settings import default_settings, flat_settings, read_settings
from sifa.seeds import WITHOUT_EFFECT, SeedOptions, run_seeds

SETTINGS = Path(__file__).parents[1] / "settings" / "small_videos_sifa.yml"
RESULTS = Path(__file__).parent / "results" / "recipe_modules"
#: Settings of the videos: those of a run alone.
DATA = (
    *("dataset.format", "dataset.root_path", "dataset.eva_root_path", "dataset.list_file", "dataset.eva_list_file"),
    *("dataset.classes_file", "dataset.num_classes"),
)
WEIGHTS = ("network.pretrained_model", "network.imagenet_weights", "network.release_weights")  # what a run begins with
FROM = ", from "  # between the names of a module and of its start
#: Those that the settings of a network can say.
MODULES = [name for name, options in EVERYONE.items() if not set(options) & set(OTHER_OPTIONS)]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m benchmarks.recipe_modules", __doc__)
    parser.add_argument("videos", type=Path, help="folder that the paths of the labels file are relative to")
    parser.add_argument("--labels", type=Path, help="CSV (default: labels.csv in the folder)")
    parser.add_argument("--part", default="repetition", help="column (default: %(default)s)")
    parser.add_argument(
        "--parts", nargs="+", default=["1", "2"], metavar="V1,V2", help="its values in each part (default: 1 2)"
    )
    parser.add_argument("--group", metavar="COLUMN", help="intervals draw its values, not single videos")
    names = f"of {'; '.join(MODULES)} (default: the first {len(CONTESTANTS)})"
    parser.add_argument(
        "--contestants", nargs="+", choices=MODULES, default=list(CONTESTANTS), metavar="NAME", help=names
    )
    parser.add_argument(
        "--starts",
        nargs="+",
        default=[],
        metavar="NAME=FILE",
        help="checkpoints; each contestant from each of them, too",
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--parallel", type=int, default=1, help="networks at a time (default: %(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("output/recipe_modules"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS, help="of results.json and the tables")
    cli.add_set_option(parser)
    return cli.run(partial(_study, parser.parse_args(argv)), interrupted="interrupted; the same command continues")


def _study(args: argparse.Namespace) -> int:
    cli.check_range("--parallel", args.parallel, 1, 4096)
    if len(set(args.seeds)) < len(args.seeds):
        raise UserError("--seeds must be different from each other")
    parts = Parts(args.part, args.parts, args.group)
    settings = {**_settings(args), "torch": torch.__version__}
    results = read_results(args.out, settings, defaults=default_settings())
    entrants = _entrants(args, results)
    ways = store_ways(args.videos, args.labels or args.videos / "labels.csv", parts, args.runs)
    make_folder(args.out)
    for way in ways:
        keep_videos(results, f"labels, {way.name}", {"samples": way.samples, "groups": way.groups})
    failed = 0
    for seeds, way, (contestant, changes) in _in_order(args, ways, entrants):
        folder = args.runs / f"{contestant} part {way.number}".replace(" ", "_")
        todo = [seed for seed in seeds if not _is_kept(results, way, contestant, seed)]
        options = SeedOptions(str(SETTINGS), folder, todo, [*_of_data(args, way), *changes, *args.set], args.parallel)
        bad = run_seeds(options, partial(_say, f"{contestant}, {way.name}"))
        failed += len(bad)
        for seed in todo:
            if seed not in bad:
                _add(results, way, contestant, seed, options.folder(seed))
        write_results(args.out, results)
    if results["cells"]:
        write_text(args.out / "recipe_modules.md", page(results))
        draw(results, args.out / "recipe_modules.png")
    cli.say(f"{len(results['cells'])} networks in {args.out}; recipe_modules.md has the tables")
    return 1 if failed else 0


def _entrants(args: argparse.Namespace, results: dict[str, Any]) -> dict[str, list[str]]:
    """Name -> settings: each contestant from random weights, and from each start, which the results keep in mind."""
    if args.starts and any(change.partition("=")[0] in WEIGHTS for change in args.set):
        raise UserError(f"--starts and --set {'|'.join(WEIGHTS)} exclude each other")
    files: dict[str, str] = {}
    for start in args.starts:
        name, _, file = start.partition("=")
        if not name or not file or name in files:
            raise UserError(f"--starts must be NAME=FILE, each name once, got {start}")
        if not Path(file).is_file():
            raise UserError(f"--starts: there is no file {file}")
        files[name] = file
        content = digest(Path(file))
        if results.setdefault("starts", {}).setdefault(name, content) != content:
            raise UserError(f"the answers that are kept for the start {name} are of another file: give it another name")
    entrants = {}
    for contestant in args.contestants:
        changes = [as_change(f"SIFA.{name}", value) for name, value in EVERYONE[contestant].items()]
        entrants[contestant] = changes
        for name, file in files.items():
            entrants[f"{contestant}{FROM}{name}"] = [*changes, as_change("network.pretrained_model", file)]
    return entrants


def _in_order(
    args: argparse.Namespace, ways: Sequence[Way], entrants: dict[str, list[str]]
) -> Iterator[tuple[Sequence[int], Way, tuple[str, list[str]]]]:
    """What is trained one after another: as many seeds as go side by side, so that a stop leaves whole comparisons."""
    parts = [args.seeds[start : start + args.parallel] for start in range(0, len(args.seeds), args.parallel)]
    return itertools.product(parts, ways, entrants.items())


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What all networks have in common: not their files, their seeds and their starts."""
    settings = flat_settings(yaml.safe_load(dump_config(load_config(str(SETTINGS), args.set))))
    common = {key: value for key, value in settings.items() if key not in {*WITHOUT_EFFECT, *DATA}}
    return {**common, "parts": args.parts, DRAWN_TOGETHER: args.group}


def _of_data(args: argparse.Namespace, way: Way) -> list[str]:
    frames = args.runs / "frames"
    values = ("PACKED", frames, frames, way.train, way.test, args.runs / "classes.txt", count_classes(args.runs))
    return [as_change(key, value) for key, value in zip(DATA, values, strict=True)]


def _say(who: str, line: str) -> None:
    cli.say(f"{who}, {line}")
    sys.stdout.flush()


def _is_kept(results: dict[str, Any], way: Way, contestant: str, seed: int) -> bool:
    wanted = {"split": way.name, "contestant": contestant, "seed": seed}
    return any(all(cell[name] == value for name, value in wanted.items()) for cell in results["cells"])


def _add(results: dict[str, Any], way: Way, contestant: str, seed: int, run: Path) -> None:
    """Keeps the answers of a run, as the study of real motion keeps those of a network.

    Raises:
        UserError: it was tested on other videos than those before.
    """
    scores, settings = load_scores(run), read_settings(run / "config.yml")
    keep_videos(results, f"labels, {way.name}", {"samples": scores.videos, "groups": way.groups})
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = [line for line in lines if line["split"] == "train"]
    right = scores.ranks(scores.of_all_views()) == 0
    results["cells"].append(
        {
            **{"task": "labels", "split": way.name, "stem": settings["network.stem_frames"] or 4, "seed": seed},
            **{"contestant": contestant, "rate": settings["optimization.base_learning_rate"]},
            "top-1": 100 * float(right.mean()),
            "right": "".join("01"[int(one)] for one in right),
            "last losses": epochs[-1]["loss"],
            "minutes": sum(epoch["videos"] / epoch["clips_per_second"] for epoch in epochs) / 60,
            "offsets": {},
        }
    )


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    settings, cells = results["settings"], results["cells"]
    lines = [
        "# Temporal modules with the recipe for short videos",
        "",
        f"settings/small_videos_sifa.yml (SIFA's offsets learn at a tenth of the rate) with others in SIFA's place, "
        f"{settings['optimization.epochs']} epochs. torch {settings['torch']}. {len(cells)} networks, "
        f"{sum(cell['minutes'] for cell in cells) / len(cells):.0f} minutes of training each.",
        "",
    ]
    for stem in sorted({cell["stem"] for cell in cells}):
        if gathered := answers(results, "labels", stem):
            for section in (
                comparison(gathered, "labels", stem),
                verdicts(gathered),
                gains(gathered),
                of_starts(gathered),
            ):
                lines += [*section, ""] if section else []
    return "\n".join(lines).rstrip() + "\n"


def of_starts(gathered: Answers) -> list[str]:
    """What each start gives, as lines of Markdown."""
    rows = []
    for name in gathered.of:
        contestant = name.partition(FROM)[0]
        if contestant != name and (gain := difference_of(gathered, name, contestant)):
            of_networks = difference_of_networks(gathered, name, contestant)
            rows.append(f"| {name} | {gain.value:+.1f} | {span(gain)} | {span(of_networks)} |")
    if not rows:
        return []
    return [
        "What a start gives: top-1 minus that of the same module from random weights, on the runs that both have, with "
        "a 95 % interval by bootstrap as above, and Student's over pairs of networks of one split and seed.",
        "",
        "| start | difference | 95 % interval | that of networks |",
        "|---|---|---|---|",
        *rows,
    ]


if __name__ == "__main__":
    sys.exit(main())
