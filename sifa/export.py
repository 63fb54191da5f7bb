"""A trained network for other runtimes: ONNX in standard operators, or PyTorch's own exported program."""

import copy
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from datasets.normalisation import MEAN, STD
from engine.metrics import mean_softmax
from models import Network
from models.inference import Probabilities, inference_network
from sifa.predictor import Predictor

TOLERANCE = 1e-4  # relative to the largest probability
SMALLEST_CROP = 32  # pixels: the last stage's maps have a position for each
ABOUT = "sifa.json"  # the description of the network in a .pt2 file

Runner = Callable[[Tensor], Tensor]  # clips (N, 3, T, H, W) to probabilities (N, classes)


def description(predictor: Predictor, crop_size: int = 0) -> dict[str, Any]:
    """What a program must know to use an exported network, as values for JSON.

    Args:
        predictor: of the network.
        crop_size: pixels; 0: as in validation.
    """
    data = predictor.config.dataset
    return {
        "network": predictor.config.network.net_name,
        "classes": predictor.classes,
        "trained_on": predictor.trained_on,
        "frames": predictor.frames,  # of a clip, in `segments` equal parts
        "segments": data.num_segments,
        "step": data.num_steps,  # from one frame of a part to the next
        "size": crop_size or predictor.size,  # pixels
        "mean": MEAN,  # of RGB in 0..1
        "std": STD,
    }


def export_network(
    network: Network, frames: int, crop_size: int, path: Path, about: Mapping[str, Any] | None = None
) -> float:
    """Writes a network by the file's extension, .onnx or .pt2, and runs the file on random clips.

    BatchNorm becomes part of the convolutions.

    Args:
        network: takes clips (N, 3, T, H, W), returns a tuple of logits (N, classes).
        frames: T of the file.
        crop_size: H and W of the file.
        path: of the file.
        about: its description: metadata of an ONNX file, values in JSON; the extra file ABOUT of a .pt2 file.

    Returns:
        The largest difference to PyTorch, relative to the largest probability.

    Raises:
        UserError: the difference is larger than the roundings of float32 explain, or the file cannot be written.
    """
    program = export_program(inference_network(network, torch.float32, fold=True, compile=False), frames, crop_size)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".onnx":
            export_onnx(program, path, about or {})
        else:
            path.write_bytes(program_bytes(program, about or {}))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None
    run = onnx_runner(path) if path.suffix == ".onnx" else program_runner(path)
    difference, rounding = largest_difference(run, network, frames, crop_size)
    if difference > max(TOLERANCE, 4 * rounding):
        raise UserError(
            f"{path} gives other results than PyTorch: they differ by {difference:.1e}, the roundings of float32 "
            f"explain {rounding:.1e}"
        )
    return difference


def export_program(network: nn.Module, frames: int, crop_size: int) -> torch.export.ExportedProgram:
    """The network as a graph for any batch size; the op is one node of it."""
    clips = torch.randn(2, 3, frames, crop_size, crop_size)
    return torch.export.export(
        Probabilities(network).eval(),
        (clips,),
        dynamic_shapes={"clip": {0: torch.export.Dim("batch", min=1, max=4096)}},
    )


def export_onnx(program: torch.export.ExportedProgram, path: Path, about: Mapping[str, Any]) -> None:
    """Writes an exported program as ONNX in standard operators."""
    from cuda_sifa.onnx import TRANSLATIONS

    table = torch.export.default_decompositions()
    table[torch.ops.aten.copy.default] = _copy
    written = torch.onnx.export(
        program.run_decompositions(table),
        input_names=["clip"],
        output_names=["probabilities"],
        dynamic_shapes={"clip": {0: "batch"}},  # its name in the file
        custom_translation_table=TRANSLATIONS,
        verbose=False,
    )
    assert written is not None
    written.model.metadata_props.update({name: json.dumps(value) for name, value in about.items()})
    written.save(path, external_data=False)


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """`target.copy_(source)` in standard operators: PyTorch 2.14's ONNX translation of it forgets to broadcast."""
    return source.to(target.dtype).expand(target.shape).clone()


def program_bytes(program: torch.export.ExportedProgram, about: Mapping[str, Any]) -> bytes:
    """The content of a .pt2 file. PyTorch does not write it: it raises RuntimeError for any error of the disk."""
    contents = io.BytesIO()
    with warnings.catch_warnings():
        # PyTorch's doubt about weights that share their memory on another device; these are on the CPU.
        warnings.filterwarnings("ignore", "No complete tensor found in the group!", UserWarning)
        torch.export.save(program, contents, extra_files={ABOUT: json.dumps(about)})
    return contents.getvalue()


def onnx_runner(path: Path, threads: int = 0) -> Runner:
    """A file as ONNX Runtime runs it on the CPU; threads 0: as many as it chooses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda clips: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: clips.numpy()})[0])


def program_runner(path: Path) -> Runner:
    """A .pt2 file as PyTorch runs it."""
    return torch.export.load(str(path)).module()


@torch.no_grad()
def largest_difference(run: Runner, network: nn.Module, frames: int, crop_size: int) -> tuple[float, float]:
    """Compares an exported network with PyTorch, on random clips in batches of 1 and 3.

    Returns:
        The largest difference between the exported network and PyTorch, and that between PyTorch in float32 and in
        float64, which roundings alone explain. Both are relative to the largest probability.
    """
    exact_network = copy.deepcopy(network).double()
    difference = rounding = 0.0
    for batch in (1, 3):
        clips = torch.randn(batch, 3, frames, crop_size, crop_size)
        expected, exact = mean_softmax(network(clips)), mean_softmax(exact_network(clips.double()))
        difference = max(difference, ((run(clips) - expected).abs().max() / expected.max()).item())
        rounding = max(rounding, ((expected - exact).abs().max() / expected.max()).item())
    return difference, rounding


def check_packages() -> None:
    """Raises UserError if a package that writes or runs ONNX is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is missing: pip install onnx onnxscript onnxruntime") from None
