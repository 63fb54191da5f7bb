"""Train and test the same settings with several seeds, and say mean and interval of their accuracy.

    python -m tools.seeds --config_file settings/NAME.yml --seeds 0 1 2 [--out output/NAME] [--parallel 2]

Each seed is a run of train_val_3d.py with --then_test, in OUT/seed_N, one after another or --parallel at a time. The
same command continues what was stopped, and leaves runs that are done as they are. With GPUs, runs side by side have
GPUs of their own; --nproc 4 starts four processes for each run. OUT/seeds.csv gets the table. `python -m tools.compare`
takes OUT for all its runs.

Exit code: 0; 1 if a run failed (the others are done); 2 if the settings are wrong; 130 if interrupted.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common import cli
from common.errors import UserError
from common.files import write_text
from sifa.seeds import SeedOptions, finished_scores, run_seeds, seed_table
from sifa.tables import as_csv, as_text


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    return cli.run(partial(_seeds, _parse(argv)), interrupted="interrupted; the same command continues")


def _seeds(args: argparse.Namespace) -> int:
    for name in ("parallel", "nproc"):
        cli.check_range(f"--{name}", getattr(args, name), 1, 4096)
    seeds = args.seeds or [0, 1, 2]
    if len(set(seeds)) < len(seeds):
        raise UserError("--seeds must be different from each other")
    out = args.out or Path("output") / Path(args.config_file).stem
    options = SeedOptions(args.config_file, out, seeds, args.set, args.parallel, args.nproc)
    failed = run_seeds(options, partial(print, flush=True))
    if results := finished_scores(options):
        table = seed_table(results)
        cli.say(as_text([table]))
        write_text(out / "seeds.csv", as_csv(table))
        cli.say(f"{out / 'seeds.csv'}")
    return 1 if failed else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("python -m tools.seeds", __doc__)
    add = parser.add_argument
    add("--config_file", required=True, help="a file of settings/")
    seeds = "one run for each (default: 0 1 2)"
    cli.add_option_with_values(parser, "--seeds", r"\d+", type=int, metavar="N", help=seeds)
    add("--out", type=Path, help="folder (default: output/ and the name of the settings file)")
    add("--parallel", type=int, default=1, metavar="N", help="runs at a time (default: %(default)s)")
    add("--nproc", type=int, default=1, metavar="N", help="processes of each run (default: %(default)s)")
    cli.add_set_option(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
