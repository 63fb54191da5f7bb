"""Whether a fine-tuning reads the videos themselves or frames of them: measured on this machine."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from datasets.normalisation import normalise
from engine.schema import Config
from sifa.build import build_dataset
from sifa.predictor import Predictor

_CLIPS, _BATCHES = 4, 3  # that are measured, after one of each to warm up


@dataclass(frozen=True)
class SourceSpeed:
    """Seconds that a clip takes.

    Attributes:
        decoding: in one loader process, from its video to the transformed clip.
        network: forward and backward pass.
        workers: loader processes.
    """

    decoding: float
    network: float
    workers: int

    @property
    def videos_are_fast_enough(self) -> bool:
        """Whether the loader processes together make clips as fast as the network takes them."""
        return self.decoding <= self.network * max(self.workers, 1)

    def text(self) -> str:
        """The decision and why."""
        times = (
            f"a clip takes {1e3 * self.decoding:.0f} ms in a loader process (there are {self.workers}) and "
            f"{1e3 * self.network:.0f} ms in the network"
        )
        if self.videos_are_fast_enough:
            return f"Straight from the videos, no frames are extracted: {times}. --format FRAME would extract them."
        return f"Frames are extracted, because videos are too slow: {times}. --format VIDEO would train from them."


def measure_source(predictor: Predictor, config: Config, list_file: Path, root: Path) -> SourceSpeed:
    """Measures the loader on some of the videos, and the network on their clips.

    Args:
        predictor: its network is measured where it will train: on the GPU, if there is one. It does not change.
        config: of the training.
        list_file: of the videos.
        root: that its paths are relative to.

    Raises:
        DataError: a video cannot be read.
    """
    files = {"format": "VIDEO", "list_file": str(list_file), "root_path": str(root)}
    dataset = build_dataset(config.model_copy(update={"dataset": config.dataset.model_copy(update=files)}), train=True)
    clips = [dataset[0][0]]
    began = time.perf_counter()
    for i in range(_CLIPS):
        clips.append(dataset[i * len(dataset) // _CLIPS, 1][0])
    decoding = (time.perf_counter() - began) / _CLIPS

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = predictor.model.to(device)
    batch = normalise(torch.stack(clips[:2]).to(device))
    with torch.enable_grad():
        for number in range(_BATCHES + 1):
            if number == 1:
                began = _now(device)
            torch.stack([logits.float().mean() for logits in model(batch)]).sum().backward()
        network = (_now(device) - began) / _BATCHES / len(batch)
    model.zero_grad(set_to_none=True)
    model.to(predictor.device)
    return SourceSpeed(decoding, network, config.dataset.num_workers)


def _now(device: torch.device) -> float:
    """Seconds, after what the device has to do is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
