"""What a trained network's answers owe to its temporal modules: its accuracy with some of them switched off.

    python -m benchmarks.module_use RUN [RUN ...]

For each run of train_val_3d.py (its folder or a checkpoint), the top-1 accuracy on the run's own validation videos, the
middle view of each: with all modules, without those of one stage, and without any. A module that is switched off adds
nothing to the clip. The network was not trained without it, so a loss of accuracy shows that the answers depend on the
module, and not how well a network would do that never had one.

For a network with learned offsets also with other offsets, of which one pass over all clips is recorded first: those of
another clip; the mean over clips and frames at each place, which fits the place and follows no clip; the mean of each
tap, the same neighbourhood everywhere; and zeros, the regular neighbourhood. With --flow a table compares its offsets
with the optical flow instead.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import sifa
from benchmarks.motion_flow import CLIPS, offsets_and_flow
from benchmarks.motion_flow_tables import flow_table
from common import cli
from datasets.normalisation import normalise
from engine.metrics import mean_softmax
from engine.scores import middle_view
from models.folding import merge_time, split_time
from models.network import Network
from models.sifa import InterFrameAttention
from models.temporal import STAGES, Stage
from sifa.build import build_dataset

BATCH = 16

#: What becomes of the offsets (clips, T-1, 2*k*k, H, W) of all clips.
OFFSET_CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "offsets of another clip": lambda offsets: offsets.roll(1, dims=0),
    "offsets of the place": lambda offsets: offsets.mean((0, 1), keepdim=True).expand_as(offsets),
    "one offset for each tap": lambda offsets: offsets.mean((0, 1, 3, 4), keepdim=True).expand_as(offsets),
    "offsets of zero": torch.zeros_like,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = cli.parser("python -m benchmarks.module_use", __doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run, or a checkpoint")
    parser.add_argument("--flow", action="store_true", help="compare offsets with the optical flow, on 40 videos")
    return cli.run(partial(_measure, parser.parse_args(argv)))


def _measure(args: argparse.Namespace) -> None:
    rows: dict[str, list[dict[str, Any]]] = {}
    for run in args.runs:
        predictor = sifa.load(run)
        clips, labels = _middle_views(build_dataset(predictor.config, train=False), CLIPS if args.flow else None)
        if args.flow:
            modules = offsets_and_flow(predictor.model, [clip.numpy() for clip in clips])
            rows |= {f"{run} | {name}": [entry] for name, entry in modules.items()}
        else:
            cases = _cases(predictor.model, clips, labels)
            figures = [f"{case} {top1():.1f}" for case, top1 in tqdm(cases.items(), desc=str(run), leave=False)]
            cli.say(f"{run}, top-1 in % of {len(labels)} videos: {', '.join(figures)}")
    if args.flow:
        cli.say("\n".join(flow_table(rows, "run | module")) if rows else "no network has learned offsets")


def _cases(network: Network, clips: Sequence[Tensor], labels: Sequence[int]) -> dict[str, Callable[[], float]]:
    """What is switched off or changed, and what measures the accuracy of it."""
    stages = list(temporal_modules(network))
    measure = partial(accuracy, network, clips, labels)
    cases: dict[str, Callable[[], float]] = {"all modules": measure}
    cases |= {f"without {stage}": partial(measure, without=[stage]) for stage in stages}
    cases["without any"] = partial(measure, without=stages)
    if own := recorded_offsets(network, clips):
        for name, change in OFFSET_CHANGES.items():
            cases[name] = partial(measure, offsets={layer: change(of_layer) for layer, of_layer in own.items()})
    return cases


def _middle_views(data: Any, count: int | None) -> tuple[list[Tensor], list[int]]:
    """The middle view of each video of a validation set, or of `count` of them, uint8 (T, S, S, 3), and its label.

    In an order drawn once: lists are often sorted by class, and "another clip" is the next one.
    """
    middle = middle_view(data.num_clips, data.num_crops)
    order = torch.randperm(len(data.videos), generator=torch.Generator().manual_seed(0)).tolist()
    samples = [data[video * data.views + middle] for video in order[:count]]
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


def offset_layers(network: Network) -> dict[str, nn.Conv2d]:
    """The convolutions that predict SIFA's offsets, by the path of their module, of copies of stages as well."""
    modules = ((path, m) for path, m in network.named_modules() if isinstance(m, InterFrameAttention))
    return {path: module.offset for path, module in modules if module.offset is not None}


def recorded_offsets(network: Network, clips: Sequence[Tensor]) -> dict[str, Tensor]:
    """What the network predicts for all clips: module -> (clips, T-1, 2*k*k, H, W).

    Without the modules that see one frame and so predict nothing, such as those of a copy of a stage.
    """
    recorded: dict[str, list[Tensor]] = {}

    def record(path: str, _: nn.Module, _inputs: Any, maps: Tensor) -> None:
        recorded.setdefault(path, []).append(maps)

    with ExitStack() as hooks, torch.inference_mode():
        for path, layer in offset_layers(network).items():
            hooks.enter_context(layer.register_forward_hook(partial(record, path)))
        for batch in _batches(clips):
            network(batch)
    return {path: split_time(torch.cat(maps), sum(map(len, maps)) // len(clips)) for path, maps in recorded.items()}


def _batches(clips: Sequence[Tensor]) -> Iterator[Tensor]:
    for start in range(0, len(clips), BATCH):
        yield normalise(torch.stack(list(clips[start : start + BATCH])))


@torch.inference_mode()
def accuracy(
    network: Network,
    clips: Sequence[Tensor],
    labels: Sequence[int],
    *,
    without: Sequence[Stage] = (),
    offsets: Mapping[str, Tensor] | None = None,
) -> float:
    """The top-1 accuracy in percent, without the temporal modules of some stages, or with other offsets.

    Args:
        network: in eval mode.
        clips: uint8 (T, S, S, 3), one of each video.
        labels: of the videos.
        without: these stages.
        offsets: of all clips in place of the predicted ones, as `recorded_offsets` returns them.
    """
    answers: list[Tensor] = []
    with _altered(network, without, offsets or {}):
        for batch in _batches(clips):
            answers.append(mean_softmax(network(batch)).argmax(1))
    return 100 * (torch.cat(answers) == torch.tensor(labels)).float().mean().item()


@contextmanager
def _altered(network: Network, without: Sequence[Stage], offsets: Mapping[str, Tensor]) -> Iterator[None]:
    """The network as `accuracy` wants it, for one pass over all clips."""
    with ExitStack() as hooks:
        modules = temporal_modules(network)
        for module in (module for stage in without for module in modules[stage]):
            hooks.enter_context(module.register_forward_hook(_adds_nothing, with_kwargs=True))
        for path, layer in offset_layers(network).items():
            if path in offsets:
                hooks.enter_context(layer.register_forward_hook(_Replay(merge_time(offsets[path]))))
        yield


class _Replay:
    """A hook that returns given maps in place of the layer's, as many at each call as the layer computed."""

    def __init__(self, maps: Tensor) -> None:
        self.maps = maps

    def __call__(self, _: nn.Module, _inputs: Any, computed: Tensor) -> Tensor:
        now, self.maps = self.maps[: len(computed)], self.maps[len(computed) :]
        return now


def _adds_nothing(_: nn.Module, inputs: tuple[Tensor], options: Mapping[str, Any], result: Tensor) -> Tensor:
    """What a module returns that is switched off: attention may add the clip itself."""
    return inputs[0] if options.get("residual") else torch.zeros_like(result)


if __name__ == "__main__":
    sys.exit(main())
