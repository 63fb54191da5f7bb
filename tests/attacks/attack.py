"""Thousands of damaged files, odd texts, names and variables: each ends in a result or in one line of an error.

    bash make.sh attack [COUNT] [--seed N] [--kind NAME]

Each attack is drawn from its own seed and runs in a fork of this process, with 2 GiB of memory and a minute of time.
The table at the end, or after Ctrl-C, counts them by kind; a line says how each failed one can be run again.
"""

import argparse
import io
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import torch

from tests.attacks.attack_files import Files, make_files
from tests.attacks.attacks import ATTACKS, Attack
from tests.attacks.child import Ending, run


class Attacked(NamedTuple):
    """The seed, the kind of an attack, and how it ended."""

    seed: int
    kind: str
    ending: Ending


def prepare(folder: Path) -> Files:
    """Writes the whole files, without threads that a fork would lose."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return make_files(folder)


def attack(files: Files, folder: Path, seeds: range, kinds: list[Attack]) -> Iterator[Attacked]:
    """Runs the attacks of some seeds.

    Args:
        folder: for the damaged files; each attack's are removed.
        kinds: from which they are drawn.
    """
    for seed in seeds:
        draw = random.Random(seed)
        kind = draw.choices(kinds, [ATTACKS[kind] for kind in kinds])[0]
        inputs = folder / "inputs"
        shutil.rmtree(inputs, ignore_errors=True)
        inputs.mkdir()
        command = kind(files, inputs, draw)
        yield Attacked(seed, kind.__name__, run(command, folder / "log.txt"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first attack")
    parser.add_argument("--kind", choices=[kind.__name__ for kind in ATTACKS], help="only this one")
    args = parser.parse_args()
    kinds = [kind for kind in ATTACKS if args.kind in (None, kind.__name__)]
    counts: dict[str, Counter[str]] = {kind.__name__: Counter() for kind in kinds}
    failed = 0
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory() as name:  # Ctrl-C: the table of what was tried
        folder = Path(name)
        files = prepare(folder)
        for seed, kind, ending in attack(files, folder, range(args.seed, args.seed + args.count), kinds):
            counts[kind][ending.what if ending.right else "failed"] += 1
            if not ending.right:
                failed += 1
                only = f" --kind {args.kind}" if args.kind else ""
                print(f"attack 1 --seed {seed}{only}: {kind}: {ending.what!a}", flush=True)
                if args.count == 1:
                    print(ending.output)
    print(f"{'kind':<20}{'tried':>7}{'result':>8}{'refused':>9}{'failed':>8}")
    for kind, found in counts.items():
        print(f"{kind:<20}{found.total():>7}{found['result']:>8}{found['refused']:>9}{found['failed']:>8}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
