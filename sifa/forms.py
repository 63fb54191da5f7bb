"""The forms in which a trained network computes predictions, and which of them is the fastest on this machine."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from common.errors import one_line
from engine.threads import cpu_threads, is_narrow
from models import Network
from models.inference import Form, Probabilities, Run, inference_network
from sifa.export import check_packages, export_network, onnx_runner
from sifa.predictor import BATCH

FormName = Literal["eager", "compiled", "onnx", "fastest"]
FORMS: tuple[FormName, ...] = get_args(FormName)
SECONDS = 2.0  # for which each form is measured, once it is ready


def choose_form(
    network: Network,
    name: FormName,
    clip: tuple[int, int, int],
    *,
    threads: int,
    dtype: torch.dtype | None,
    fold: bool,
) -> Form:
    """The form of this name; for `fastest` the one that is. See `build_form` and `fastest_form`."""
    if name == "fastest":
        return fastest_form(network, clip, threads=threads, dtype=dtype, fold=fold)
    return build_form(network, name, clip, threads=threads, dtype=dtype or torch.float32, fold=fold)


def build_form(
    network: Network, name: FormName, clip: tuple[int, int, int], *, threads: int, dtype: torch.dtype, fold: bool
) -> Form:
    """A form of a network in eval mode, which stays as it is.

    Args:
        network: computes on its own device; onnx on the CPU only.
        name: eager: PyTorch. compiled: torch.compile with frozen weights, whose first call takes minutes. onnx: ONNX
            Runtime; export and check take seconds, for a large network a minute.
        clip: (T, S, S). onnx takes no other, the forms of PyTorch do.
        threads: of ONNX Runtime; those of PyTorch are set where it computes.
        dtype: of weights and clips; onnx computes in float32 only.
        fold: whether BatchNorm becomes part of the convolutions, as it always does in onnx.

    Raises:
        UserError: the packages of onnx are not installed.
        ValueError: onnx with another device or dtype.
    """
    full = _full_name(name, dtype)
    if name != "onnx":
        module = Probabilities(inference_network(network, dtype, fold=fold, compile=name == "compiled")).eval()
        return Form(full, lambda clips: module(clips.to(dtype)))
    device = next(network.parameters()).device
    if device.type != "cpu" or dtype != torch.float32:
        raise ValueError(f"form onnx computes on the CPU in torch.float32, got device {device} and {dtype}")
    check_packages()
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode(False), cpu_threads(threads):
        file = Path(folder) / "network.onnx"
        export_network(network, clip[0], clip[1], file)
        return Form(full, onnx_runner(file, threads))


def fastest_form(
    network: Network, clip: tuple[int, int, int], *, threads: int, dtype: torch.dtype | None, fold: bool
) -> Form:
    """Builds the forms that this machine has, measures them on random clips, and keeps the fastest.

    Args:
        network: in eval mode, which stays as it is.
        clip: (T, S, S).
        threads: on the CPU.
        dtype: None: float32, and bfloat16 as well where the CPU has instructions for it.
        fold: see `build_form`.
    """
    device = next(network.parameters()).device
    dtypes = [dtype or torch.float32]
    if dtype is None and device.type == "cpu" and computes_in_bfloat16():
        dtypes.append(torch.bfloat16)
    forms: list[Form] = []
    missing: list[str] = []
    views = BATCH if device.type != "cpu" or is_narrow(network, clip) else 1  # wide ones gain nothing from more
    clips = torch.randn(views, 3, *clip, device=device)
    for name in _available(device, dtypes):
        for candidate in dtypes if name != "onnx" else dtypes[:1]:
            try:
                form = build_form(network, name, clip, threads=threads, dtype=candidate, fold=fold)
                _seconds(form.run, clips, threads)  # compiles, allocates
                forms.append(form)
            except Exception as error:  # a form that cannot be had here, such as one that needs a compiler, is left out
                missing.append(f"no {_full_name(name, candidate)}: {one_line(error).split('. ')[0][:100]}")
                break  # what float32 lacks, bfloat16 lacks as well
    return _choose(forms, missing, clips, threads)


def _full_name(name: FormName, dtype: torch.dtype) -> str:
    return name if dtype == torch.float32 else f"{name} {str(dtype).removeprefix('torch.')}"


def computes_in_bfloat16() -> bool:
    """Whether the CPU has instructions for it; else bfloat16 is slower than float32."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch does not tell
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _available(device: torch.device, dtypes: list[torch.dtype]) -> list[FormName]:
    onnx: list[FormName] = ["onnx"] if device.type == "cpu" and dtypes[0] == torch.float32 else []
    return ["eager", "compiled", *onnx]


def _choose(forms: list[Form], missing: list[str], clips: Tensor, threads: int) -> Form:
    """Measures the forms in turns; on a busy machine, all are slower alike."""
    times: list[list[float]] = [[] for _ in forms]
    ends = time.perf_counter() + SECONDS * len(forms)
    while len(times[0]) < 3 or time.perf_counter() < ends:
        for form, own in zip(forms, times, strict=True):
            own.append(_seconds(form.run, clips, threads))
    medians = [statistics.median(own) for own in times]
    best = medians.index(min(medians))
    per_clip = ", ".join(f"{form.name} {1e3 * t / len(clips):.3g} ms" for form, t in zip(forms, medians, strict=True))
    apart = _apart(forms[0], forms[best], clips)
    report = f"fastest form here: {forms[best].name} ({', '.join([f'{per_clip} a clip', *missing])}"
    report += f"; probabilities {apart:.0e} from those of eager)" if best else ")"
    return Form(forms[best].name, forms[best].run, report)


@torch.inference_mode()
def _apart(first: Form, second: Form, clips: Tensor) -> float:
    return (first.run(clips) - second.run(clips)).abs().max().item()


@torch.inference_mode()
def _seconds(run: Run, clips: Tensor, threads: int) -> float:
    with cpu_threads(threads):
        began = time.perf_counter()
        run(clips).cpu()  # waits for a GPU
        return time.perf_counter() - began
