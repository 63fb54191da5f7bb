"""One cell of benchmarks/real_motion.py: a contestant, trained on a split with a seed, and its answers on the test."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from benchmarks.motion_data import Sample, Split, Task, Video, classes_of, some_of, test_clip, to_batch, train_batch
from benchmarks.motion_flow import branch_strength, offsets_and_flow, some_test_clips
from common.errors import UserError
from models.network import Network
from models.sifa_resnet import ClipBottleneck, SIFANet, SIFANetOptions
from models.temporal import STAGES, Stage, TemporalModelling

#: Name -> options of `TemporalModelling`, and of the training. Each differs from another in what its name says.
CONTESTANTS: dict[str, dict[str, Any]] = {
    "2D network": {"temporal": "none"},
    "temporal shift": {"temporal": "shift"},
    "temporal convolution": {"temporal": "conv"},
    "temporal difference": {"temporal": "difference"},
    "correlation": {"temporal": "correlation"},
    "SIFA_C": {"temporal": "centre"},
    "SIFA_R": {"offset": "regular"},
    "SIFA": {},
}
#: What might keep SIFA from its place, alone and together; SIFA_R with the same change is one of them, too.
REASONS: dict[str, dict[str, Any]] = {
    "SIFA_R, branch_scale 0.1": {"offset": "regular", "branch_scale": 0.1},
    "SIFA, branch_scale 0.1": {"branch_scale": 0.1},
    "SIFA, offsets learn at a tenth": {"offset_rate": 0.1},
    "SIFA, branch_scale 0.1, offsets learn at a tenth": {"branch_scale": 0.1, "offset_rate": 0.1},
    "SIFA, offsets start as the release's": {"offset_init": "kaiming"},
    "SIFA_R, cosine": {"offset": "regular", "cosine": True},
    "SIFA_R, projection": {"offset": "regular", "projection": True},
    "SIFA_C, cosine, projection": {"temporal": "centre", "cosine": True, "projection": True},
    "SIFA_R, cosine, projection": {"offset": "regular", "cosine": True, "projection": True},
    "SIFA, cosine, projection": {"cosine": True, "projection": True},
    "SIFA, cosine, projection, offsets learn at a tenth": {"cosine": True, "projection": True, "offset_rate": 0.1},
}
#: What tells the order of frames without looking from one frame to another. SIFA adds nothing to the last frame of a
#: clip, and so marks it; does the mark alone tell the direction?
CONTROLS: dict[str, dict[str, Any]] = {"2D network, last frame marked": {"temporal": "none", "marked": True}}
EVERYONE = {**CONTESTANTS, **REASONS, **CONTROLS}
OTHER_OPTIONS = ("offset_rate", "marked")  # those that are not of `TemporalModelling`


class LastFrameMark(nn.Module):
    """Adds each frame to itself, but for the last one: (N, T, C, H, W) to the same, zeros for the last frame."""

    def forward(self, clip: Tensor) -> Tensor:
        return pad(clip[:, :-1], (0, 0) * 3 + (0, 1))


@dataclass(frozen=True)
class Budget:
    """What all contestants have in common.

    Args:
        depths: bottlenecks of res2..res5.
        width: channels of res2.
        frames: of a clip.
        crop: side of a clip in pixels.
        epochs: times that the training samples are gone through.
        batch: clips of a step.
        stages: that have temporal modules, in each second bottleneck.
        time_crop: share of a video that a training clip is drawn from: (low, high); None: the whole video.
    """

    depths: tuple[int, int, int, int]
    width: int
    frames: int
    crop: int
    epochs: int
    batch: int = 16
    stages: tuple[Stage, ...] = ("res3", "res4", "res5")
    time_crop: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for stage in self.stages:
            depth = self.depths[STAGES.index(stage)]
            if depth < 2:
                raise UserError(f"{stage} has a temporal module in its second bottleneck and has {depth}: see --depths")


def build(contestant: str, budget: Budget, *, stem_frames: int, classes: int) -> Network:
    """A contestant's network, with one head: the second one joins pairs of frames."""
    options = EVERYONE[contestant]
    modelling = {name: value for name, value in options.items() if name not in OTHER_OPTIONS}
    network = SIFANet(
        SIFANetOptions(
            depths=budget.depths,
            width=budget.width,
            stem_frames=stem_frames,
            dual_head=False,
            dropout_ratio=0.2,
            temporal_modelling=TemporalModelling(stages=budget.stages, sifa_kernel=(3, 3, 3, 3), **modelling),
        ),
        num_classes=classes,
        clip_length=budget.frames,
    )
    if options.get("marked"):
        for stage in budget.stages:
            network.stage_blocks(stage)[1].temporal = LastFrameMark()
    return network.to(memory_format=torch.channels_last)


def run_cell(
    task: Task,
    split: Split,
    videos: Sequence[Video],
    budget: Budget,
    *,
    contestant: str,
    stem_frames: int,
    seed: int,
    rate: float,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Trains and tests one network.

    Args:
        progress: called after each step.

    Returns:
        For JSON: accuracy in percent, the test samples that are right (a string of 0 and 1 in the order of the split),
        the training loss at the end, for learned offsets how they compare with the optical flow, and minutes of CPU.
    """
    began = time.process_time()
    torch.manual_seed(seed)
    network = build(contestant, budget, stem_frames=stem_frames, classes=len(classes_of(task, videos)))
    losses = _train(
        network,
        split.train,
        videos,
        budget,
        seed=seed,
        rate=rate,
        offset_rate=_offset_rate(contestant),
        progress=progress,
    )
    network.eval()
    right = _answers(network, split.test, videos, budget)
    return {
        "top-1": 100 * float(np.mean(right)),
        "right": "".join("01"[value] for value in right),
        "last losses": float(np.mean(losses[-10:])),
        "offsets": offsets_and_flow(
            network, some_test_clips(split.test, videos, frames=budget.frames, crop=budget.crop)
        ),
        "minutes": (time.process_time() - began) / 60,
    }


def steps_of(split: Split, budget: Budget) -> int:
    return budget.epochs * _pass_over(split.train, budget)[2]


def _pass_over(samples: Sequence[Sample], budget: Budget) -> tuple[list[Sample], int, int]:
    """A pass through the training samples: those it goes through, how many of them a step has, and how many steps.

    In the task direction it goes through those that run forwards, and a step has each of its clips backwards as well.
    At first a network whose frames meet in temporal modules alone hardly tells one from the other; side by side all
    else cancels out in the gradient. With clips drawn one by one it stayed at chance for 2,300 steps.
    """
    forward = [sample for sample in samples if not sample.reversed]
    size = budget.batch if len(forward) == len(samples) else max(1, budget.batch // 2)
    return forward, size, math.ceil(len(forward) / size)


def _offset_rate(contestant: str) -> float:
    return EVERYONE[contestant].get("offset_rate", 1.0)


def _train(
    network: nn.Module,
    samples: Sequence[Sample],
    videos: Sequence[Video],
    budget: Budget,
    *,
    seed: int,
    rate: float,
    offset_rate: float,
    progress: Callable[[], object],
) -> list[float]:
    """AdamW with a warm-up of a tenth and a cosine; the same batches for every contestant. Returns the losses."""
    offsets = [p for name, p in network.named_parameters() if name.endswith("temporal.offset.weight")]
    others = [p for name, p in network.named_parameters() if not name.endswith("temporal.offset.weight")]
    groups = [{"params": others, "lr": rate}, {"params": offsets, "lr": rate * offset_rate}]
    optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.02)
    chosen, size, steps = _pass_over(samples, budget)
    steps *= budget.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / (0.1 * steps + 1), 0.5 + 0.5 * math.cos(math.pi * i / steps))
    )
    generator = torch.Generator().manual_seed(1000 + seed)
    losses: list[float] = []
    for _ in range(budget.epochs):
        order = torch.randperm(len(chosen), generator=generator).tolist()
        for start in range(0, len(order), size):
            clips, labels = train_batch(
                [chosen[i] for i in order[start : start + size]],
                videos,
                frames=budget.frames,
                crop=budget.crop,
                time_crop=budget.time_crop,
                both_directions=len(chosen) < len(samples),
                generator=generator,
            )
            loss = cross_entropy(network(clips)[0], labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress()
    return losses


@torch.no_grad()
def _answers(network: nn.Module, samples: Sequence[Sample], videos: Sequence[Video], budget: Budget) -> list[bool]:
    right: list[bool] = []
    for start in range(0, len(samples), 32):
        part = samples[start : start + 32]
        clips: Tensor = to_batch([test_clip(s, videos, frames=budget.frames, crop=budget.crop) for s in part])
        answers = network(clips)[0].argmax(1).tolist()
        right += [answer == sample.label for answer, sample in zip(answers, part, strict=True)]
    return right


@torch.no_grad()
def start_table(videos: Sequence[Video], budget: Budget, seeds: int = 3) -> str:
    """How strong the temporal modules are before any training: the spread of what they add over that of the features.

    Of 20 videos at most, in batches of 4, in training mode with a stem of one frame. The range is that
    of the seeds.
    """
    chosen = some_of(videos, 20)
    clips = [test_clip(Sample(i, False, 0), chosen, frames=budget.frames, crop=budget.crop) for i in range(len(chosen))]
    batches = [to_batch(clips[start : start + 4]) for start in range(0, len(clips), 4)]
    rows = []
    for name in ("temporal shift", "SIFA_R", "SIFA_R, branch_scale 0.1"):  # SIFA starts as SIFA_R
        strengths: dict[str, list[float]] = {}
        for seed in range(seeds):
            torch.manual_seed(seed)
            for stage, value in _strengths(build(name, budget, stem_frames=1, classes=2), budget, batches).items():
                strengths.setdefault(stage, []).append(value)
        spans = " | ".join(f"{min(values):.2f} to {max(values):.2f}" for values in strengths.values())
        rows.append(f"| {name} | {spans} |")
    head = f"| before training | {' | '.join(strengths)} |\n|{'---|' * (1 + len(strengths))}"
    title = f"Strength of the branch: {len(chosen)} videos, {seeds} seeds, stem of one frame."
    return "\n".join([title, "", head, *rows, ""])


def _strengths(network: Network, budget: Budget, batches: Sequence[Tensor]) -> dict[str, float]:
    """The mean strength of each stage's temporal modules over the batches."""
    found: dict[str, list[float]] = {stage: [] for stage in budget.stages}

    def record(stage: str, _: nn.Module, inputs: tuple[Tensor], options: Mapping[str, Any], result: Tensor) -> None:
        found[stage].append(branch_strength(inputs[0], result, options))

    for stage in budget.stages:
        for block in network.stage_blocks(stage):
            if isinstance(block, ClipBottleneck) and block.temporal is not None:
                block.temporal.register_forward_hook(partial(record, stage), with_kwargs=True)
    for clips in batches:
        network(clips)
    return {stage: float(np.mean(values)) for stage, values in found.items()}
