"""What a trained network's answers owe to its temporal modules: its accuracy with some of them switched off.

    python -m benchmarks.module_use RUN [RUN ...]

For each run of train_val_3d.py (its folder or a checkpoint), the top-1 accuracy on the run's own validation videos, the
middle view of each: with all modules, without those of one stage, and without any. A module that is switched off adds
nothing to the clip. The network was not trained without it, so a loss of accuracy shows that the answers depend on the
module, and not how well a network would do that never had one.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import sifa
from common import cli
from datasets.normalisation import normalise
from engine.metrics import mean_softmax
from engine.scores import middle_view
from models.network import Network
from models.temporal import STAGES, Stage
from sifa.build import build_dataset

BATCH = 16


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m benchmarks.module_use", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or a checkpoint")
    return cli.run(partial(_measure, parser.parse_args(argv)))


def _measure(args: argparse.Namespace) -> None:
    for run in args.runs:
        predictor = sifa.load(run)
        clips, labels = _middle_views(build_dataset(predictor.config, train=False))
        stages = list(temporal_modules(predictor.model))
        cases: dict[str, list[Stage]]
        cases = {"all modules": [], **{f"without {stage}": [stage] for stage in stages}, "without any": stages}
        figures = [
            f"{case} {accuracy(predictor.model, clips, labels, without=off):.1f}"
            for case, off in tqdm(cases.items(), desc=str(run), leave=False)
        ]
        cli.say(f"{run}, top-1 in % of {len(labels)} videos: {', '.join(figures)}")


def _middle_views(data: Any) -> tuple[list[Tensor], list[int]]:
    """The middle view of each video of a validation set, uint8 (T, S, S, 3), and its label."""
    middle = middle_view(data.num_clips, data.num_crops)
    samples = [data[video * data.views + middle] for video in range(len(data.videos))]
    return [clip for clip, _, _ in samples], [label for _, label, _ in samples]


def temporal_modules(network: Network) -> dict[Stage, list[nn.Module]]:
    """The temporal modules of each stage that has any."""
    paths = dict(zip(STAGES, network.stage_paths, strict=True))
    copies = network.duplicated_stages
    found: dict[Stage, list[nn.Module]] = {}
    for stage, path in paths.items():
        places = [path, *(copy for copy, original in copies.items() if original == path)]
        modules = [
            module
            for place in places
            for name, module in network.get_submodule(place).named_modules()
            if name.endswith(".temporal")
        ]
        if modules:
            found[stage] = modules
    return found


@torch.inference_mode()
def accuracy(
    network: Network, clips: Sequence[Tensor], labels: Sequence[int], *, without: Sequence[Stage] = ()
) -> float:
    """The top-1 accuracy in percent, without the temporal modules of some stages.

    Args:
        network: in eval mode.
        clips: uint8 (T, S, S, 3), one of each video.
        labels: of the videos.
        without: these stages.
    """
    hooks = [
        module.register_forward_hook(_adds_nothing, with_kwargs=True)
        for stage, modules in temporal_modules(network).items()
        for module in modules
        if stage in without
    ]
    try:
        right = 0
        for start in range(0, len(clips), BATCH):
            heads = network(normalise(torch.stack(list(clips[start : start + BATCH]))))
            right += int((mean_softmax(heads).argmax(1) == torch.tensor(labels[start : start + BATCH])).sum())
        return 100 * right / len(clips)
    finally:
        for hook in hooks:
            hook.remove()


def _adds_nothing(_: nn.Module, inputs: tuple[Tensor], options: Mapping[str, Any], result: Tensor) -> Tensor:
    """What a module returns that is switched off: attention may add the clip itself."""
    return inputs[0] if options.get("residual") else torch.zeros_like(result)


if __name__ == "__main__":
    sys.exit(main())
