"""The scores of all views of all videos of a list: scores.npz, which tools/report.py reads."""

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_origin

import numpy as np
import torch

from common.errors import UserError, describe
from common.files import atomic_write, check_stored_archive
from engine.metrics import interval, label_rank

SCORES = "scores.npz"  # in output_dir


def middle_view(clips: int, crops: int) -> int:
    """The number of the view that is the middle crop of the middle clip."""
    return clips // 2 * crops + crops // 2


@dataclass(frozen=True)
class Scores:
    """Probabilities of each view (clip x crop), and where its frames are.

    Args:
        videos: paths as in the list, V of them.
        labels: (V,) int64.
        probabilities: (V, views, classes) float32, the mean of the heads' softmaxes; view = clip * crops + crop.
        classes: their names, or numbers where they have none.
        clips, crops: their product is the number of views.
        list_file, root_path, format, frame_template, first_frame: as in the configuration's section `dataset`.

    Raises:
        TypeError: an entry is of another type.
        ValueError: the sizes contradict each other, or a label is of no class.
    """

    videos: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    classes: list[str]
    clips: int
    crops: int
    list_file: str
    root_path: str
    format: str
    frame_template: str
    first_frame: int

    def __post_init__(self) -> None:
        for field in fields(self):
            value, wanted = getattr(self, field.name), get_origin(field.type) or field.type
            if type(value) is not wanted or (wanted is list and not all(isinstance(one, str) for one in value)):
                raise TypeError(f"{field.name} must not be of type {type(value).__name__}")
        if self.labels.dtype.kind not in "iu" or self.probabilities.dtype.kind != "f":
            raise TypeError("labels must be whole numbers, and probabilities floating-point numbers")
        wanted = (len(self.videos), self.clips * self.crops, len(self.classes))
        if self.probabilities.shape != wanted:
            raise ValueError(
                f"probabilities must be (videos, views, classes) = {wanted}, got {self.probabilities.shape}"
            )
        if self.labels.shape != wanted[:1]:
            raise ValueError(f"labels must be one for each of {wanted[0]} videos, got {self.labels.shape}")
        if not all(0 <= label < len(self.classes) for label in self.labels.tolist()):
            raise ValueError(f"labels must be in 0..{len(self.classes) - 1}")

    @property
    def views(self) -> int:
        return self.clips * self.crops

    def of_middle_view(self) -> np.ndarray:
        """(V, classes): the middle crop of the middle clip alone."""
        return self.probabilities[:, middle_view(self.clips, self.crops)]

    def of_all_views(self) -> np.ndarray:
        """(V, classes): the mean over the views."""
        return self.probabilities.mean(1)

    def interval(self, hits: int) -> tuple[float, float]:
        """The 95 % interval of the share hits / V in percent."""
        return interval(hits, len(self.videos))

    def ranks(self, probabilities: np.ndarray) -> np.ndarray:
        """(V,): the rank of the right class in (V, classes), as validation counts it; 0 is a top-1 hit."""
        return label_rank(torch.from_numpy(probabilities), torch.from_numpy(self.labels)).numpy()


def save_scores(path: Path, scores: Scores) -> None:
    """Writes scores.npz completely or not at all.

    Raises:
        UserError: the disk is full or the folder not writable.
    """
    arrays = {field.name: np.asarray(getattr(scores, field.name)) for field in fields(Scores)}
    try:
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {describe(error)}") from None


# What reading a broken archive raises; RuntimeError: it says that it is encrypted.
_BROKEN = (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, zipfile.BadZipFile)


def load_scores(path: Path) -> Scores:
    """Reads scores.npz. Nothing in the file is executed.

    Args:
        path: of the file, or of the folder of a run with it.

    Raises:
        UserError: there is no such file, or it does not hold scores.
    """
    path = path / SCORES if path.is_dir() else path
    try:
        check_stored_archive(path)
        with np.load(path, allow_pickle=False) as arrays:
            # An array without axes becomes a plain value, one of texts a list.
            values = {
                field.name: arrays[field.name].tolist()
                if arrays[field.name].ndim == 0 or arrays[field.name].dtype.kind == "U"
                else arrays[field.name]
                for field in fields(Scores)
            }
            return Scores(**values)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; train_val_3d.py --test writes it") from None
    except _BROKEN as error:
        raise UserError(f"{path} does not hold scores: {error}") from None
