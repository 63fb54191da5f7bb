"""A trained network from its checkpoint alone, which carries configuration and class names.

predictor = sifa.load("output/demo/checkpoints/last.pth")
probabilities = predictor.predict("video.mp4")
print(predictor.classes[probabilities.argmax()])
"""

import os
from pathlib import Path

import torch

from common.errors import UserError
from engine.checkpoint import class_names_of, load_weights, read_checkpoint, weights
from engine.config import checkpoint_config
from engine.threads import choose_threads
from sifa.build import build_network
from sifa.forms import FORMS, FormName, choose_form
from sifa.predictor import Predictor
from sifa.trained_settings import trained_on


def load(
    checkpoint: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    num_clips: int | None = None,
    num_crops: int | None = None,
    form: FormName = "eager",
    dtype: torch.dtype | None = None,
    fold: bool = True,
    threads: int | None = None,
) -> Predictor:
    """The network of a checkpoint of `train_val_3d.py`, in eval mode. Nothing in the file is executed.

    Predictions are computed with a copy of the network, the predictor's `form`; its `model` is the network as it was
    trained.

    Args:
        checkpoint: file; its averaged weights ("ema") have priority over "model".
        device: of the network.
        num_clips, num_crops: views of a video, any number of clips and 1 crop or 3; None: as in the checkpoint's own
            validation.
        form: what computes the predictions. eager: PyTorch. compiled: torch.compile with frozen weights; the first
            prediction takes minutes, and so does the first with another number of views. onnx: ONNX Runtime on the CPU;
            loading takes a minute. fastest: measures all that this machine has, for minutes, and keeps the fastest;
            `form.report` of the predictor says it.
        dtype: that predictions are computed in, such as torch.bfloat16. Probabilities are float32. None: float32; for
            the fastest form bfloat16 as well, if the CPU has instructions for it.
        fold: BatchNorm becomes part of the convolutions (`models.inference`): the same to rounding, and faster.
        threads: of the network on the CPU; None: see `engine.threads.choose_threads`.

    Raises:
        ValueError: an argument has an impossible value.
        UserError: the file is missing, damaged or no checkpoint; it has no configuration or that of another version;
            there is no such device; or the packages of onnx are not installed.
    """
    _check(num_clips, num_crops, threads, dtype, form)
    path = Path(checkpoint)
    contents = read_checkpoint(path)
    config = checkpoint_config(contents, path)
    num_classes = config.dataset.num_classes
    model = build_network(config)
    load_weights(model, weights(contents, path), path)
    try:
        model = model.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # a PyTorch without CUDA asserts
        raise UserError(f"device {device} cannot be used: {str(error).splitlines()[0]}") from None
    frames, size = config.dataset.num_segments * config.dataset.clip_length, config.evaluation.eva_crop_size
    clip = (frames, size, size)
    threads = threads or choose_threads(model, clip)
    return Predictor(
        model=model,
        classes=class_names_of(contents, path, num_classes) or [str(label) for label in range(num_classes)],
        config=config,
        device=torch.device(device),
        num_clips=num_clips or config.evaluation.eva_num_clips,
        num_crops=num_crops or config.evaluation.eva_num_crop,
        trained_on=trained_on(contents, config, path),
        form=choose_form(model, form, clip, threads=threads, dtype=dtype, fold=fold),
        threads=threads,
    )


def _check(num_clips: object, num_crops: object, threads: object, dtype: object, form: object) -> None:
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    if num_clips is not None and not (isinstance(num_clips, int) and num_clips >= 1):
        raise ValueError(f"num_clips must be a positive integer, got {num_clips!r}")
    if num_crops is not None and not (isinstance(num_crops, int) and num_crops in (1, 3)):
        raise ValueError(f"num_crops must be 1 (centre) or 3 (along the longer side), got {num_crops!r}")
    if threads is not None and not (isinstance(threads, int) and threads >= 1):
        raise ValueError(f"threads must be a positive integer, got {threads!r}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating type such as torch.bfloat16, got {dtype!r}")
