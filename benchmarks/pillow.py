"""The release's transforms, frame by frame on Pillow's pictures: the loader is compared with these."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

# Arguments of `datasets.train_transform`.
RECIPES: dict[str, dict[str, Any]] = {
    "validation": {},
    "training, no colours": {"color_jitter": False},
    "jitter and blur": {},
    "RandAugment (2, 27)": {"rand_augment": (2, 27)},
}


def on_pictures(recipe: str, crop: int) -> Callable[[Image.Image], Image.Image]:
    """The recipe for one picture. Its random numbers come from torch's global generator."""
    if recipe == "validation":
        return v2.Compose([v2.Resize(crop), v2.CenterCrop(crop)])
    steps: list[Callable] = [v2.RandomResizedCrop(crop, scale=(0.2, 1.0)), v2.RandomHorizontalFlip()]
    if recipe == "jitter and blur":
        jitter = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
        steps += [v2.RandomApply([jitter], 0.8), v2.RandomGrayscale(0.2), v2.RandomApply([v2.Lambda(_blur)], 0.5)]
    elif "rand_augment" in RECIPES[recipe]:
        steps.append(v2.RandAugment(*RECIPES[recipe]["rand_augment"], num_magnitude_bins=31))
    return v2.Compose(steps)


def clip_of(files: Sequence[Path], transform: Callable[[Image.Image], Image.Image], seed: int) -> torch.Tensor:
    """uint8 (T, H, W, 3), RGB. Each frame has the same seed, so all have the same random draws."""
    frames = []
    for file in files:
        torch.manual_seed(seed)
        frames.append(np.asarray(transform(Image.open(file).convert("RGB"))))
    return torch.from_numpy(np.stack(frames))


def _blur(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(torch.empty(()).uniform_(0.1, 2.0).item()))
