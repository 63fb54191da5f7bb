"""Parameters, multiply-adds by stage and memory of activations of the network that a settings file describes.

    python -m tools.complexity --config_file settings/c2d_sifa_resnet50-1x16x1.k400.yml
    python -m tools.complexity --config_file settings/NAME.yml --set evaluation.eva_crop_size=256

Nothing is computed: tensors have shapes and no contents, so that it takes a second whatever the size.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from common import cli
from engine.config import load_config
from sifa.complexity import measure_config


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m tools.complexity", __doc__)
    parser.add_argument("--config_file", required=True, help="a file of settings/")
    cli.add_set_option(parser)
    return cli.run(partial(_measure, parser.parse_args(argv)))


def _measure(args: argparse.Namespace) -> None:
    config = load_config(args.config_file, args.set)
    cli.say(f"{config.network.net_name}\n{measure_config(config).table()}")


if __name__ == "__main__":
    sys.exit(main())
