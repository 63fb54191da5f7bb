"""A trained network as an ONNX file of 8-bit integers, and its comparison with the float32 file."""

import logging
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from datasets.normalisation import normalise
from engine.schema import Config
from sifa.build import build_dataset
from sifa.export import Runner, check_packages, description, export_network, onnx_runner
from sifa.predictor import Predictor

Int8 = Literal["static", "dynamic"]
LAYERS = ["Conv", "Gemm", "MatMul"]  # int8 makes these faster; what lies between (SIFA's sampling) needs the precision


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same clips.

    Args:
        clips: how many.
        agreement: percentage of the clips for which both choose the same class.
        difference, largest: of the probabilities, the mean and the largest one.
        ratio: time of the second over that of the first, one clip at a time, in turns; the fastest of each, as what a
            shared machine adds is never negative.
        right: percentage of the clips whose class each chooses.
    """

    clips: int
    agreement: float
    difference: float
    largest: float
    ratio: float
    right: tuple[float, float]


@dataclass(frozen=True)
class Int8Export:
    """An int8 file next to the float32 file: their sizes in bytes, and their results."""

    float32_bytes: int
    int8_bytes: int
    comparison: Comparison


def export_int8(predictor: Predictor, path: Path, int8: Int8, *, calibration: int, videos: int) -> Int8Export:
    """Writes a network as an ONNX file of 8-bit integers, and compares it with float32.

    Args:
        predictor: the network, and where its videos are.
        path: of the file.
        int8: see `quantize`.
        calibration: number of training videos that static takes the ranges of activations from.
        videos: number of validation videos to compare on.

    Raises:
        UserError: a package is missing, the videos are not where the configuration says, or the file cannot be written.
    """
    check_packages()
    config = predictor.config
    calibration_clips = sample_clips(config, calibration, train=True)[0] if int8 == "static" else []
    clips, labels = sample_clips(config, videos, train=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            exact = Path(folder) / "exact.onnx"
            export_network(predictor.model, predictor.frames, predictor.size, exact, description(predictor))
            path.parent.mkdir(parents=True, exist_ok=True)
            quantize(exact, path, int8, calibration_clips)
            compared = compare({"float32": onnx_runner(exact), "int8": onnx_runner(path)}, clips, labels)
            return Int8Export(exact.stat().st_size, path.stat().st_size, compared["int8"])
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def quantize(exact: Path, path: Path, int8: Int8, clips: list[Tensor]) -> None:
    """Writes an ONNX file of float32 as one of int8.

    Args:
        exact: the file of float32.
        path: of the file of int8.
        int8: static, weights and activations are integers, per channel; dynamic, the weights are, and the ranges of
            the activations are computed in each call.
        clips: (1, 3, T, H, W) each, normalised: static takes the ranges of the activations from them.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.clips: Iterator[Tensor] = iter(clips)

        def get_next(self) -> Any:
            clip = next(self.clips, None)
            return None if clip is None else {"clip": clip.numpy()}

    with _without_warnings(), tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(exact), str(prepared), skip_symbolic_shape=True)
        if int8 == "dynamic":
            # ConvInteger takes unsigned weights only, of one scale a layer.
            quantization.quantize_dynamic(
                prepared, path, weight_type=quantization.QuantType.QUInt8, op_types_to_quantize=LAYERS
            )
        else:
            quantization.quantize_static(
                prepared,
                path,
                Reader(),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                op_types_to_quantize=LAYERS,
            )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps the root logger to errors for a while: ONNX Runtime recommends to its own callers what is done here."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def sample_clips(config: Config, count: int, *, train: bool) -> tuple[list[Tensor], list[int]]:
    """One clip for each of `count` videos spread over a list, as validation takes it.

    Args:
        config: says where the lists and the videos are.
        count: videos at most.
        train: of the training list; else of the validation list.

    Returns:
        The clips, (1, 3, T, H, W) each, normalised, and their labels.

    Raises:
        UserError: the videos are not where the configuration says.
    """
    if train:
        data = config.dataset
        lists = {"eva_list_file": data.list_file, "eva_root_path": data.root_path}
        config = config.model_copy(update={"dataset": data.model_copy(update=lists)})
    videos = build_dataset(config, train=False)
    chosen = np.linspace(0, len(videos.videos) - 1, min(count, len(videos.videos))).round().astype(int).tolist()
    samples = [videos[video * videos.views] for video in chosen]
    return [normalise(torch.as_tensor(clip)[None]).contiguous() for clip, *_ in samples], [
        label for _, label, *_ in samples
    ]


@torch.inference_mode()
def compare(runners: Mapping[str, Runner], clips: list[Tensor], labels: list[int]) -> dict[str, Comparison]:
    """Compares each network with the first, on clips (1, 3, T, H, W). The networks take turns at each clip."""
    probabilities: dict[str, list[Tensor]] = {name: [] for name in runners}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for run in runners.values():  # not timed: memory is allocated, kernels are compiled
        run(clips[0])
    for clip in clips:
        for name, run in runners.items():
            start = time.perf_counter()
            probabilities[name].append(run(clip).clone())
            times[name].append(time.perf_counter() - start)
    first = next(iter(runners))
    expected, truth = torch.cat(probabilities[first]), torch.tensor(labels)
    compared = {}
    for name in runners:
        got = torch.cat(probabilities[name])
        difference = (got - expected).abs()
        compared[name] = Comparison(
            clips=len(clips),
            agreement=_percentage(got.argmax(1) == expected.argmax(1)),
            difference=difference.mean().item(),
            largest=difference.max().item(),
            ratio=min(times[name]) / min(times[first]),
            right=(_percentage(expected.argmax(1) == truth), _percentage(got.argmax(1) == truth)),
        )
    return compared


def _percentage(hits: Tensor) -> float:
    return 100 * hits.double().mean().item()
