"""The dataset: its samples, that they depend on nothing but (seed, epoch, index), and its errors."""

import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from common.errors import DataError
from datasets import ClipDataset, train_transform, val_transform, worker_init
from datasets import test_transform as transform_for_test
from tests.datasets.conftest import MakeVideo


def raw(clip: np.ndarray) -> np.ndarray:
    return clip


def numbers(clip: Tensor) -> list[int]:
    """The 0-based frame numbers of an untransformed clip of the `make_video` fixture."""
    return [round((value - 5) / 10) for value in clip.float().mean(dim=(1, 2, 3)).tolist()]


@pytest.fixture
def folder(make_video: MakeVideo, tmp_path: Path) -> Path:
    make_video("a/one", 20)
    make_video("b/two words", 3)
    (tmp_path / "list.txt").write_text("a/one 20 1\n\nb/two words 3 0\n")
    return tmp_path


def dataset(folder: Path, **options: Any) -> ClipDataset:
    defaults: dict[str, Any] = {"num_classes": 2, "num_segments": 1, "clip_length": 4, "num_steps": 1}
    defaults |= {"transform": raw, "train": False}
    return ClipDataset(folder / "list.txt", folder / "frames", **(defaults | options))


def test_the_crops_of_a_clip_decode_it_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = [transform_for_test(16, crop, 3) for crop in range(3)]
    data, alone = (dataset(folder, transform=crops, num_crops=3, num_clips=2) for _ in range(2))
    order = [*range(len(data)), 4, 3, 4, 0]  # in a row, then at random
    read, decoded = data.reader.read, []

    def counted(path: str, positions: Any) -> Any:
        decoded.append(path)
        return read(path, positions)

    monkeypatch.setattr(data.reader, "read", counted)
    for index in order:
        alone._cached_clip = None
        assert torch.equal(data[index][0], alone[index][0]), index
    assert len(decoded) == len(data) // 3 + 2, "each clip once; then clips 1 and 0"


def test_views_are_clips_times_crops_of_every_video(folder: Path) -> None:
    # Crops differ in their channels, clips in their frames: D - L = 16, starts 0, 5, 10.
    data = dataset(folder, num_clips=3, num_crops=2, transform=[raw, lambda clip: clip[..., :1]])
    assert (len(data), data.views, len(data.videos)) == (12, 6, 2)
    seen = [(clip.shape[3], numbers(clip), label, index) for clip, label, index in map(data.__getitem__, range(12))]
    one, two = [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13]], [[0, 1, 2, 2]] * 3
    expected = [(channels, frames, 1) for frames in one for channels in (3, 1)]
    expected += [(channels, frames, 0) for frames in two for channels in (3, 1)]
    assert seen == [(*sample, index) for index, sample in enumerate(expected)]


def test_segments_and_steps_reach_the_sampling(folder: Path) -> None:
    data = dataset(folder, num_segments=2, clip_length=2, num_steps=3)
    assert numbers(data[0][0]) == [0, 3, 10, 13]


def test_samples_have_the_networks_shape(folder: Path) -> None:
    clip, label, index = dataset(folder, train=True, transform=train_transform(32))[1]
    assert (tuple(clip.shape), clip.dtype, label, index) == ((4, 32, 32, 3), torch.uint8, 0, 1)
    crops = [transform_for_test(16, crop, 3) for crop in range(3)]
    assert dataset(folder, transform=crops, num_crops=3)[5][0].shape == (4, 16, 16, 3)


def test_a_training_sample_depends_on_seed_epoch_and_index_alone(folder: Path, make_video: MakeVideo) -> None:
    for path, num_frames in (("a/one", 20), ("b/two words", 3)):
        make_video(path, num_frames, still=True)  # textured: every other crop of it is another picture

    def samples(workers: int, keys: list[tuple[int, int]], seed: int = 0) -> list[Tensor]:
        data = dataset(folder, train=True, transform=train_transform(24), seed=seed)
        loader: DataLoader[Any] = DataLoader(
            data, batch_size=None, sampler=keys, num_workers=workers, worker_init_fn=worker_init
        )
        return [clip.clone() for clip, _, _ in loader]

    keys = [(index, epoch) for epoch in range(3) for index in range(2)]
    torch.manual_seed(11)
    first = samples(0, keys)
    torch.manual_seed(22)
    for other in (samples(2, keys), samples(0, keys[::-1])[::-1]):
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(dataset(folder, train=True, transform=train_transform(24))[1][0], first[1]), (
        "no epoch is epoch 0"
    )
    everything = [*first, *samples(0, keys, seed=1)]
    assert len({clip.numpy().tobytes() for clip in everything}) == len(everything), "two samples were drawn alike"


def test_training_positions_vary_over_the_epochs(folder: Path) -> None:
    data = dataset(folder, train=True)
    starts = {numbers(data[0, epoch][0])[0] for epoch in range(60)}
    assert min(starts) == 0
    assert max(starts) == 16
    assert len(starts) > 10


def test_a_time_crop_is_for_training_alone(folder: Path) -> None:
    options: dict[str, Any] = {"num_segments": 4, "clip_length": 1, "time_crop": (0.4, 0.4)}
    data = dataset(folder, train=True, **options)
    clips = [numbers(data[0, epoch][0]) for epoch in range(40)]
    assert max(clip[-1] - clip[0] for clip in clips) < 8  # of 20 frames
    assert len({clip[0] for clip in clips}) > 8
    assert numbers(dataset(folder, **options)[0][0]) == [0, 5, 10, 15]


def test_a_sample_leaves_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    dataset(folder, train=True, transform=train_transform(24))[0]
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_frame_is_one_line_with_list_line_and_file(folder: Path, workers: int) -> None:
    frame = folder / "frames" / "b" / "two words" / "00002.jpg"
    frame.unlink()
    iterator: Any = iter(DataLoader(dataset(folder, transform=val_transform(16)), num_workers=workers))
    with pytest.raises(DataError) as caught:
        list(iterator)
    if workers:
        iterator._shutdown_workers()  # left to the garbage collection it takes five seconds
    assert str(caught.value) == f"{folder / 'list.txt'}:3: the frame {frame} is missing"


def test_the_list_is_read_at_once(folder: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{folder / 'list.txt'}:1: the label must be a class in 0..0")):
        dataset(folder, num_classes=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": True, "num_clips": 2}, "training has one view a video, got num_clips 2 and num_crops 1"),
        ({"num_crops": 3}, "transform must be one transform a crop, 3, got 1"),
        ({"num_clips": 0}, "num_clips must be at least 1, got 0"),
        ({"on_bad_sample": "skip"}, "on_bad_sample must be raise or replace, got 'skip'"),
        ({"max_bad_fraction": 1.0}, "max_bad_fraction must be in [0, 1), got 1.0"),
        ({"time_crop": (0.0, 1.0)}, "time_crop must be two shares in increasing order within (0, 1], got [0.0, 1.0]"),
        ({"clip_length": 0}, "clip_length must be at least 1, got 0"),
    ],
)
def test_refuses_arguments_that_contradict(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dataset(folder, **options)


@pytest.fixture
def some_are_bad(make_video: MakeVideo, tmp_path: Path) -> Path:
    """Ten videos, of which 3 and 7 lack frames."""
    for video in range(10):
        make_video(f"v{video}", 0 if video in (3, 7) else video + 1)
    (tmp_path / "list.txt").write_text("".join(f"v{video} {video + 1} {video % 2}\n" for video in range(10)))
    return tmp_path


REPLACE: dict[str, Any] = {"train": True, "on_bad_sample": "replace", "max_bad_fraction": 0.2}


def test_a_bad_sample_is_replaced_by_a_good_one_with_its_label(some_are_bad: Path) -> None:
    data = dataset(some_are_bad, **REPLACE)
    replaced = [(data[3, epoch], data[7, epoch]) for epoch in range(20)]
    seen = set()
    for clip, label, index in (sample for pair in replaced for sample in pair):
        assert index not in (3, 7)
        assert label == data.videos[index].label
        assert max(numbers(clip)) <= index, "the clip is of the video that the index names"
        seen.add(index)
    assert len(seen) > 4, "replacements are drawn from the whole list"
    assert data[5][2] == 5


def test_replacements_depend_on_seed_epoch_and_index_alone(some_are_bad: Path) -> None:
    keys = [(index, epoch) for epoch in range(4) for index in range(10)]

    def samples(workers: int, keys: list[tuple[int, int]]) -> list[tuple[list[int], int]]:
        loader: DataLoader[Any] = DataLoader(
            dataset(some_are_bad, **REPLACE), batch_size=None, sampler=keys, num_workers=workers
        )
        return [(numbers(clip), index) for clip, _, index in loader]

    first = samples(0, keys)
    assert samples(2, keys) == first
    assert samples(0, keys[::-1])[::-1] == first


def test_each_bad_video_is_logged_once(
    some_are_bad: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(some_are_bad, **REPLACE)
    caplog.set_level("WARNING", "sifa.data")
    logger = logging.getLogger("sifa")  # a run before may have given it handlers, and turned propagation off
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    for epoch in range(5):
        for index in range(10):
            data[index, epoch]
    assert len(data.bad_videos) == 2
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    frames = some_are_bad / "frames"
    for count, line in enumerate(lines, start=1):
        assert line.endswith(f" is missing; another video is drawn instead ({count} of 10 so far)")
    # A replacement may meet a bad video before its own turn.
    starts = {line[: line.index(" is missing") - len("/0000N.jpg")] for line in lines}
    assert starts == {f"{some_are_bad / 'list.txt'}:{video + 1}: the frame {frames}/v{video}" for video in (3, 7)}


def test_workers_count_together(some_are_bad: Path) -> None:
    data = dataset(some_are_bad, **REPLACE)
    list(DataLoader(data, batch_size=None, sampler=[(3, 0), (7, 0)], num_workers=2))
    assert len(data.bad_videos) == 2
    data = dataset(some_are_bad, **(REPLACE | {"max_bad_fraction": 0.1}))
    iterator: Any = iter(DataLoader(data, batch_size=None, sampler=[(3, 0), (7, 0)] * 2, num_workers=2))
    with pytest.raises(DataError) as caught:
        list(iterator)
    iterator._shutdown_workers()
    assert "2 of 10 videos cannot be read, dataset.max_bad_fraction 0.1 allows 1; the latest: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_root_ends_soon(some_are_bad: Path) -> None:
    shutil.rmtree(some_are_bad / "frames")
    (some_are_bad / "frames").mkdir()
    data = dataset(some_are_bad, **REPLACE)
    with pytest.raises(DataError, match=r"3 of 10 videos cannot be read, dataset.max_bad_fraction 0.2 allows 2"):
        data[0]


def test_evaluation_never_replaces(some_are_bad: Path) -> None:
    data = dataset(some_are_bad, **(REPLACE | {"train": False}))
    with pytest.raises(DataError, match=r"v3/00001\.jpg is missing"):
        data[3]


def test_repeats_are_further_draws_of_a_sample(folder: Path) -> None:
    data = dataset(folder, train=True)
    starts = [numbers(data[0, 2, repeat][0])[0] for repeat in range(12)]
    assert starts == [numbers(data[0, 2, repeat][0])[0] for repeat in range(12)]
    assert len(set(starts)) > 4
    assert torch.equal(data[0, 2, 0][0], data[0, 2][0])


def test_an_index_beyond_the_end_is_refused(folder: Path) -> None:
    with pytest.raises(IndexError, match=re.escape("the index must be in 0..1, got 2")):
        dataset(folder)[2]
