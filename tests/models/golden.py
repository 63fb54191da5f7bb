"""The authors' own figures of whole networks: their checkpoints and clips, made from a rule instead of stored.

`tests/data/manifest.txt` lists the names and shapes of the release's checkpoints, `SHAPE NAMES` a line, where
{a,b} stands for a and b in turn. `tests/data/models*.json` and `training.json` hold the results, in float64.
"""

import itertools
import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import models

DATA = Path(__file__).parents[1] / "data"
MODELS: dict[str, dict[str, Any]] = json.loads((DATA / "models.json").read_text())
MODELS |= json.loads((DATA / "models_swin_k5.json").read_text())
STEPS: list[dict[str, Any]] = json.loads((DATA / "training.json").read_text())["steps"]

Shape = tuple[int, ...]


def read_manifest() -> dict[str, dict[str, Shape]]:
    """net_name -> name -> shape."""
    networks: dict[str, dict[str, Shape]] = {}
    for line in (DATA / "manifest.txt").read_text().splitlines():
        if line.startswith("["):
            entries = networks.setdefault(line.strip("[]"), {})
            continue
        size, names = line.split()
        shape = () if size == "scalar" else tuple(map(int, size.split("x")))
        alternatives = [part.split(",") for part in re.split(r"[{}]", names)]
        entries.update({"".join(parts): shape for parts in itertools.product(*alternatives)})
    return networks


MANIFEST = read_manifest()


def random_stream(seed: int, name: str) -> np.random.RandomState:
    """Each tensor has a stream of its own, which numpy promises never to change."""
    return np.random.RandomState(zlib.crc32(f"{seed}:{name}".encode()))


def release_entry(name: str, shape: Shape, seed: int) -> Tensor:
    """The value of one entry of the figures' checkpoints. Constants of the release are NaN: none may be used."""
    leaf = name.split(".")[-1]
    if leaf in ("relative_position_index", "attn_mask", "num_batches_tracked") or ".def_cor." in name:
        return torch.full(shape, math.nan, dtype=torch.float64)
    stream = random_stream(seed, name)
    if leaf == "running_var" or (len(shape) == 1 and leaf == "weight"):
        value = stream.uniform(0.5, 1.5, shape)
        if ".bn3.weight" in name:
            value = 0.2 * value
    else:
        value = stream.standard_normal(shape)
        if leaf in ("running_mean", "bias"):
            value = 0.1 * value
        elif leaf == "relative_position_bias_table":
            value = 0.5 * value
        else:
            fan_in = math.prod(shape[1:])
            value = (4.0 if "conv_offset" in name else 1.0) * value / np.sqrt(fan_in)
    return torch.from_numpy(np.asarray(value))


def release_shapes(case: dict[str, Any]) -> dict[str, Shape]:
    """Names and shapes of the checkpoint of one case: the manifest's, with its classes and neighbourhood sizes."""
    shapes = dict(MANIFEST[case["net_name"]])
    for name, shape in shapes.items():
        if re.match(r"fc(_dual)?\.", name):
            shapes[name] = (case["num_classes"], *shape[1:])
        elif match := re.match(r"layer(\d)\w*\..*conv_offset", name):
            shapes[name] = (2 * case["sifa_kernel"][int(match[1]) - 1] ** 2, *shape[1:])
    return shapes


def release_state_dict(case: dict[str, Any]) -> dict[str, Tensor]:
    return {name: release_entry(name, shape, case["seed"]) for name, shape in release_shapes(case).items()}


def clips(case: dict[str, Any], seed: int | None = None) -> Tensor:
    """(batch, 3, clip_length, image_size, image_size): a plane wave that moves, and noise over it."""
    stream = random_stream(case["seed"] if seed is None else seed, "clip")
    size = case["image_size"]
    shape = (case["batch"], 3, case["clip_length"], size, size)
    t, y, x = np.indices(shape[2:])
    waves = np.empty(shape)
    for plane in np.ndindex(shape[:2]):
        fy, fx, ft, phase = stream.uniform(0.05, 0.4, 4)
        waves[plane] = np.sin(fy * y + fx * x + ft * t + 6.28 * phase)
    return torch.from_numpy(waves + 0.3 * stream.standard_normal(shape))


def build(case: dict[str, Any], **options: Any) -> models.Network:
    """The network of a case in float64 with its weights, dropout and stochastic depth off."""
    kernel = case["sifa_kernel"]
    if "swin" in case["net_name"]:
        options = {"offset": "regular", "stochastic_depth": 0.0, **options}
        kernel = kernel[:1] * 4  # the release's Swin reads the first entry alone: docs/differences.md
    model = models.build_model(
        case["net_name"],
        num_classes=case["num_classes"],
        clip_length=case["clip_length"],
        sifa_kernel=kernel,
        dropout_ratio=0.0,
        **options,
    ).double()
    models.load_release_state_dict(model, release_state_dict(case))
    return model


def our_name(name: str) -> str:
    """The name of a parameter of the release in our networks."""
    for theirs, ours in (
        (".conv_offset.", ".temporal.offset."),
        (".tda_norm.", ".norm_temporal."),
        (".mlp.fc1.", ".mlp.0."),
        (".mlp.fc2.", ".mlp.3."),
    ):
        name = name.replace(theirs, ours)
    name = re.sub(r"(blocks\.\d+)\.conv\.", r"\1.temporal.conv.", name)
    return re.sub(r"^(layer\w+\.\d+)\.(fc[12]\.)", r"\1.context.\2", name)
