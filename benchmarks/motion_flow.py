"""Learned offsets next to the optical flow of the same clips: how large both are, and whether one follows the other."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.motion_data import Sample, Video, some_of, test_clip, to_batch
from models.network import Network
from models.sifa import InterFrameAttention
from models.temporal import STAGES

CLIPS = 40  # that are compared at most
MOVING = 0.5  # pixels of the clip from which on a position is said to move
METHODS = ("Farneback", "DIS")
ARROWS = 1  # clips whose arrows are kept for the picture


def offsets_and_flow(network: Network, clips: Sequence[np.ndarray]) -> dict[str, dict[str, Any]]:
    """For each SIFA module with learned offsets: statistics over all positions of all pairs of frames.

    Lengths are in positions of the module's maps. `offset std` and `flow std` are standard deviations of a
    component; the offset is the mean over the taps. `outside` is the share of sampling points outside the map,
    `outside, regular` that of the regular neighbourhood. `branch` is the spread of what attention adds, divided by that
    of the features. `r NAME` is the correlation of offset and flow over both components, `moving r NAME` that over the
    positions whose flow is half a pixel of the clip or more. `r spread` is the correlation of the spread of the taps
    with the length of Farneback's flow. With `within places` both sides are first freed of their mean at each position:
    without it they may agree because the same positions always move. `by place` is the share of the variance of a tap's
    offsets that depends on the position alone: the same in all clips. With `random weights` the offset convolution has
    random weights of equal spread, on the same features. What does not vary has None.

    Args:
        network: in eval mode.
        clips: uint8 (T, S, S, 3), RGB, that the network was not trained on.
    """
    collected: dict[str, dict[str, list[np.ndarray]]] = {}
    for clip in clips:
        recorded = _record(network, to_batch([clip]))
        flows = {method: optical_flow(clip[network.shown_frames], method) for method in METHODS} if recorded else {}
        for name, found in recorded.items():
            columns = collected.setdefault(name, defaultdict(list))
            columns["offset"].append(found.offset)
            columns["random"].append(found.random)
            columns["branch"].append(np.array([found.branch]))
            for method, flow in flows.items():
                columns[method].append(_to_map(flow, *found.offset.shape[-2:]))
    return {name: _summary(columns, crop=clips[0].shape[1]) for name, columns in collected.items()}


def some_test_clips(samples: Sequence[Sample], videos: Sequence[Video], *, frames: int, crop: int) -> list[np.ndarray]:
    """Of each video the first sample that runs forwards, of 40 videos at most."""
    forward = list({sample.video: sample for sample in samples if not sample.reversed}.values())
    return [test_clip(sample, videos, frames=frames, crop=crop) for sample in some_of(forward, CLIPS)]


@dataclass(frozen=True)
class Recorded:
    """What one module did with one clip.

    Args:
        offset: (T-1, k*k, 2, H, W), y and x.
        random: the same of random weights.
        branch: its strength.
    """

    offset: np.ndarray
    random: np.ndarray
    branch: float


@torch.no_grad()
def _record(network: Network, clip: Tensor) -> dict[str, Recorded]:
    recorded: dict[str, Recorded] = {}

    def record(
        name: str, module: InterFrameAttention, inputs: tuple[Tensor], options: Mapping[str, Any], result: Tensor
    ) -> None:
        offset = module.predict_offset(inputs[0])
        if offset is None or offset.shape[1] == 0:
            return
        own, random = (
            values[0].unflatten(1, (-1, 2)).numpy() for values in (offset, _offset_of_chance(module, inputs[0]))
        )
        recorded[name] = Recorded(own, random, branch_strength(inputs[0], result, options))

    handles = [
        module.register_forward_hook(partial(record, f"{stage} {name}"), with_kwargs=True)
        for stage in network.stages_with_sifa()
        for name, module in network.sifa_modules(stage)
    ]
    try:
        network(clip)
    finally:
        for handle in handles:
            handle.remove()
    return recorded


def _offset_of_chance(module: InterFrameAttention, clip: Tensor) -> Tensor:
    """What random weights, as large as the module's own, would predict."""
    chance = InterFrameAttention(
        module.channels,
        module.kernel_size,
        groups=module.groups,
        offset=module.offset_source,
        cosine=module.cosine,
    )
    assert module.offset is not None
    assert chance.offset is not None
    own = module.offset.weight
    chance.offset.weight.copy_(torch.randn(own.shape, generator=torch.Generator().manual_seed(0)) * own.std())
    offset = chance.predict_offset(clip)
    assert offset is not None
    return offset


def branch_strength(clip: Tensor, result: Tensor, options: Mapping[str, Any]) -> float:
    """The spread of what a temporal module adds to a clip, as a share of the clip's.

    Args:
        result: of the module, with the clip in it if its `options` (keyword arguments) say residual.
    """
    added = result - clip if options.get("residual") else result
    return (added[:, :-1].std() / clip.std().clamp_min(1e-9)).item()


def optical_flow(frames: np.ndarray, method: str) -> np.ndarray:
    """Motion of each pixel of frame t to frame t+1: (T-1, 2, H, W), y and x in pixels.

    SIFA's offsets say where in frame t+1 to look for a position of frame t, so they have the same direction.

    Args:
        frames: uint8 (T, H, W, 3), RGB.
        method: one of `METHODS`.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flows = []
    for now, following in pairwise(grey):
        if method == "Farneback":
            flow = cv2.calcOpticalFlowFarneback(now, following, None, 0.5, 3, 11, 3, 5, 1.1, 0)  # type: ignore[call-overload]
        else:
            flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(now, following, None)  # type: ignore[call-overload]
        flows.append(flow[..., ::-1].transpose(2, 0, 1))  # OpenCV has x first
    return np.stack(flows)


def _to_map(flow: np.ndarray, height: int, width: int) -> np.ndarray:
    """Flow (T-1, 2, S, S) as the mean over what each position of a map covers, in positions: (T-1, 2, H, W)."""
    scale = np.array([height / flow.shape[2], width / flow.shape[3]], dtype=np.float32)
    small = [[cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA) for part in pair] for pair in flow]
    return np.array(small, dtype=np.float32) * scale[:, None, None]


def motion_table(videos: Sequence[Video], *, frames: int, crop: int, stems: Sequence[int]) -> str:
    """How far things move from one feature frame to the next, in positions of each stage's maps: without any network.

    Of 100 videos at most the clip that each is tested with, by Farneback's flow.
    """
    chosen = some_of(videos, 100)
    rows = []
    for stem in stems:
        shown = slice(stem // 2, None, stem)
        clips = [test_clip(Sample(i, False, 0), chosen, frames=frames, crop=crop)[shown] for i in range(len(chosen))]
        flow = np.concatenate([optical_flow(clip, "Farneback") for clip in clips])
        for stage, stride in zip(STAGES, (4, 8, 16, 32), strict=True):
            side = -(-crop // stride)
            length = np.linalg.norm(_to_map(flow, side, side), axis=1)
            middle, most = np.percentile(length, [50, 95])
            share = 100 * (length >= 1).mean()
            rows.append(f"| {stem} | {stage} | {side} x {side} | {middle:.2f} | {most:.2f} | {share:.1f} |")
    head = ["| stem | stage | map | median | 95th percentile | 1 or more, % |", "|---|---|---|---|---|---|"]
    title = f"Motion in positions: {len(chosen)} videos, clips of {frames} frames of {crop} x {crop} pixels, Farneback."
    return "\n".join([title, "", *head, *rows, ""])


def _summary(columns: dict[str, list[np.ndarray]], crop: int) -> dict[str, Any]:
    offsets = np.concatenate(columns["offset"])  # (pairs, k*k, 2, H, W)
    mean = offsets.mean(1)
    height, width = offsets.shape[-2:]
    result: dict[str, Any] = {
        "map": [height, width],
        "pairs": len(offsets),
        "offset std": float(mean.std()),
        "offset std of a tap": float(offsets.std()),
        "largest offset": float(np.abs(offsets).max()),
        "outside": _outside(offsets),
        "outside, regular": _outside(np.zeros_like(offsets[:1])),
        "branch": float(np.mean(columns["branch"])),
    }
    speed = np.linalg.norm(np.concatenate(columns["Farneback"]), axis=1)
    for kind, of in (("", offsets), (", random weights", np.concatenate(columns["random"]))):
        spread = of.std(1).mean(1)
        result[f"by place{kind}"] = _share_by_place(of)
        result[f"r spread{kind}"] = _correlation(spread.ravel(), speed.ravel())
        result[f"r spread within places{kind}"] = _correlation(_within_places(spread), _within_places(speed))
    for method in METHODS:
        flow = np.concatenate(columns[method])
        moving = np.linalg.norm(flow, axis=1, keepdims=True).repeat(2, axis=1) * crop / width >= MOVING
        result[f"flow std {method}"] = float(flow.std())
        result[f"r {method}"] = _correlation(mean.ravel(), flow.ravel())
        result[f"r within places {method}"] = _correlation(_within_places(mean), _within_places(flow))
        result[f"moving r {method}"] = _correlation(mean[moving], flow[moving])
        result[f"moving share {method}"] = float(moving.mean())
    keep = ARROWS * (len(columns["offset"][0]))
    fields = {"offset": mean, **{method: np.concatenate(columns[method]) for method in METHODS}}
    # In float64, else each would be written with the 16 digits of a rounded float32.
    result["arrows"] = {name: np.round(field[:keep].astype(float), 3).tolist() for name, field in fields.items()}
    return result


def _within_places(values: np.ndarray) -> np.ndarray:
    """Values (pairs, ...) without the mean at each position, flat."""
    return (values - values.mean(0)).ravel()


def _share_by_place(offsets: np.ndarray) -> float | None:
    """Of the variance of each tap's offsets (pairs, k*k, 2, H, W) the share that the mean at each position explains."""
    around_tap = offsets - offsets.mean((0, 3, 4), keepdims=True)
    total = float((around_tap**2).mean())
    return float((around_tap.mean(0) ** 2).mean()) / total if total > 0 else None


def _outside(offsets: np.ndarray) -> float:
    """The share of the sampling points that have no pixel of the map next to them, and so contribute nothing."""
    taps, (height, width) = offsets.shape[1], offsets.shape[-2:]
    k = round(taps**0.5)
    tap = np.stack(np.meshgrid(np.arange(k), np.arange(k), indexing="ij")).reshape(2, -1).T - k // 2
    place = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"))
    points = offsets + tap[None, :, :, None, None] + place[None, None]
    inside = (points > -1).all(2) & (points[:, :, 0] < height) & (points[:, :, 1] < width)
    return float(1 - inside.mean())


def _correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    if one.size < 2 or one.std() < 1e-9 or other.std() < 1e-9:
        return None
    return float(np.corrcoef(one, other)[0, 1])
