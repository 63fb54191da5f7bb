"""Decoded videos as clips: list files, readers of frames, clip positions, transforms and the dataset of them all."""

from common.errors import DataError
from datasets.annotations import Video, read_classes, read_list, write_classes
from datasets.clips import ClipDataset, worker_init
from datasets.frames import FrameFolder
from datasets.normalisation import normalise
from datasets.readers import FORMATS, Reader, ReaderOptions, open_reader
from datasets.sampling import test_positions, train_positions
from datasets.transforms import test_transform, train_transform, val_transform

__all__ = [
    "FORMATS",
    "ClipDataset",
    "DataError",
    "FrameFolder",
    "Reader",
    "ReaderOptions",
    "Video",
    "normalise",
    "open_reader",
    "read_classes",
    "read_list",
    "test_positions",
    "test_transform",
    "train_positions",
    "train_transform",
    "val_transform",
    "worker_init",
    "write_classes",
]
