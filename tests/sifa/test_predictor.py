"""A checkpoint alone gives a network that answers as the validation does."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sifa
import train_val_3d
from common.errors import DataError, UserError
from datasets.one_pass import read_chosen
from engine.metrics import mean_softmax
from engine.schema import Config
from sifa.build import build_dataset
from sifa.predictor import count_frames
from tests.tiny import CLASSES, SETTINGS, build, moving_square, write_checkpoint, write_video

FRAMES = (24, 40, 16, 15, 9)  # of the videos; the last two are shorter than a clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loading")
    write_checkpoint(folder / "last.pth")
    for number, frames in enumerate(FRAMES):
        write_video(folder / f"v{number}.avi", moving_square(frames, seed=number))
    return folder


def test_three_lines(folder: Path) -> None:
    predictor = sifa.load(folder / "last.pth")
    probabilities = predictor.predict(folder / "v0.avi")
    assert predictor.classes[probabilities.argmax()] in CLASSES
    assert not any(module.training for module in predictor.model.modules())
    assert probabilities.shape == (6,)
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-6)


def test_transform_gives_what_the_network_takes(folder: Path) -> None:
    predictor = sifa.load(folder / "last.pth", num_crops=1)
    clip = predictor.transform(moving_square(16)[::2])
    assert clip.shape == (1, 3, predictor.frames, predictor.size, predictor.size)
    with torch.no_grad():
        assert [head.shape for head in predictor.model(clip)] == [(1, 6), (1, 6)]


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "a"])
def test_views_that_are_none(wrong: Any, folder: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"num_clips must be a positive integer, got {wrong!r}")):
        sifa.load(folder / "last.pth", num_clips=wrong)
    for number in (wrong, 2):
        with pytest.raises(ValueError, match=re.escape("num_crops must be 1 (centre) or 3") + f".*, got {number!r}$"):
            sifa.load(folder / "last.pth", num_crops=number)


def test_frames_that_do_not_fit(folder: Path) -> None:
    predictor = sifa.load(folder / "last.pth", num_crops=1)
    frames = moving_square(8)
    height, width = frames.shape[1:3]
    wrong: Any
    for wrong, message in (
        (frames[0], f"got uint8 ({height}, {width}, 3)"),
        (frames.astype(np.float32), f"got float32 (8, {height}, {width}, 3)"),
        (frames.transpose(0, 3, 1, 2), f"got uint8 (8, 3, {height}, {width})"),
        (frames[:, :0], f"got uint8 (8, 0, {width}, 3)"),
        (torch.from_numpy(frames).float(), f"got float32 (8, {height}, {width}, 3)"),
        (frames.tolist(), "got list"),
    ):
        with pytest.raises(
            ValueError, match="^" + re.escape(f"frames must be a NumPy array or a tensor uint8 (T, H, W, 3), {message}")
        ):
            predictor.transform(wrong)
    with pytest.raises(ValueError, match=r"the frames of a clip must be a positive multiple of 8 .*, got 5"):
        predictor.transform(frames[:5])


def test_scores_are_those_of_the_validation(folder: Path, tmp_path: Path) -> None:
    predictor = sifa.load(folder / "last.pth")
    scores = [predictor.predict(folder / f"v{number}.avi") for number in range(len(FRAMES))]

    # Two videos are labelled as predicted, the others with the least probable class.
    labels = [int(score.argmax() if number < 2 else score.argmin()) for number, score in enumerate(scores)]
    lines = [f"v{n}.avi {frames} {label}\n" for n, (frames, label) in enumerate(zip(FRAMES, labels, strict=True))]
    (tmp_path / "list.txt").write_text("".join(lines))
    settings: dict[str, Any] = copy.deepcopy(SETTINGS)
    settings["dataset"] |= {
        **{"root_path": str(folder), "eva_list_file": str(tmp_path / "list.txt"), "format": "VIDEO", "num_workers": 0}
    }
    settings["output_dir"] = str(tmp_path / "output")
    data = build_dataset(Config.model_validate(settings), train=False)
    assert data.views == 6
    for number, score in enumerate(scores):
        views = torch.stack([data[number * data.views + view][0] for view in range(data.views)])
        assert torch.equal(views, predictor.views(folder / f"v{number}.avi"))
        with torch.no_grad():
            expected = mean_softmax(predictor.model(predictor.normalise(views))).mean(0)
        torch.testing.assert_close(score, expected, rtol=1e-5, atol=1e-7)

    (tmp_path / "settings.yml").write_text(json.dumps(settings))  # JSON is YAML
    arguments = f"--config_file={tmp_path}/settings.yml", "--eval", f"--checkpoint={folder}/last.pth"
    assert train_val_3d.main(list(arguments)) == 0
    (line,) = [json.loads(line) for line in (tmp_path / "output/metrics.jsonl").read_text().splitlines()]
    assert (line["videos"], line["top1"]) == (5, 40.0)


def test_several_views_are_averaged(folder: Path) -> None:
    predictor = sifa.load(folder / "last.pth", num_clips=3, num_crops=1)
    views = predictor.views(folder / "v1.avi")
    assert views.shape == (3, 8, 48, 48, 3)
    assert not torch.equal(views[0], views[1])
    single = torch.cat([predictor.probabilities(view[None]) for view in views])
    torch.testing.assert_close(predictor.predict(folder / "v1.avi"), single.mean(0), rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def predictor(folder: Path) -> sifa.Predictor:
    return sifa.load(folder / "last.pth", num_clips=2, num_crops=1)


def test_frames_in_memory_are_a_video(predictor: sifa.Predictor, folder: Path) -> None:
    frames, _ = read_chosen(folder / "v0.avi", range)
    expected = predictor.predict(folder / "v0.avi")
    for given in (frames, torch.from_numpy(frames)):
        torch.testing.assert_close(predictor.predict(given), expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(DataError, match="the clip has a single frame: motion takes two"):
        predictor.predict(frames[:1])
    with pytest.raises(ValueError, match="got uint8 \\(0, "):
        predictor.predict(frames[:0])


def test_a_list_has_a_prediction_for_each(predictor: sifa.Predictor, folder: Path) -> None:
    (folder / "broken.avi").write_bytes(b"no video at all")
    videos: list[Any] = ["v0.avi", "nowhere.avi", "v1.avi", "broken.avi", "v4.avi"]
    given = [folder / name for name in videos[:3]] + [str(folder / name) for name in videos[3:]]
    wrong, frames = np.zeros((3, 4, 5)), moving_square(20)
    predictions = predictor.predict([*given, wrong, frames], batch_size=3, workers=2)
    assert [one.source for one in predictions] == [*map(Path, given), 5, 6]
    assert [one.frames for one in predictions] == [24, 0, 40, 0, 9, 0, 20]
    assert {one.views for one in predictions if not one.error} == {2}
    for one, video in ((predictions[number], given[number]) for number in (0, 2, 4)):
        torch.testing.assert_close(one.probabilities, predictor.predict(video), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(predictions[6].probabilities, predictor.predict(frames), rtol=1e-5, atol=1e-7)
    for number, message in ((1, "nowhere.avi is missing"), (3, "can be decoded"), (5, "got float64 (3, 4, 5)")):
        assert message in str(predictions[number].error)
        with pytest.raises((DataError, ValueError), match=re.escape(message)):
            _ = predictions[number].probabilities
    (folder / "broken.avi").unlink()


def test_a_folder_is_a_list_of_its_videos(predictor: sifa.Predictor, folder: Path, tmp_path: Path) -> None:
    for name in ("b.avi", "a.avi"):
        (tmp_path / name).symlink_to(folder / "v0.avi")
    one, two = predictor.predict(tmp_path)
    assert [one.source, two.source] == [tmp_path / "a.avi", tmp_path / "b.avi"]
    torch.testing.assert_close(one.probabilities, two.probabilities, rtol=1e-5, atol=1e-7)


def test_a_stream_is_predicted_window_by_window(predictor: sifa.Predictor) -> None:
    frames = moving_square(40)
    windows = list(predictor.predict(iter(torch.from_numpy(frames)), window=16, stride=10))
    assert [(window.start, window.end) for window in windows] == [(0, 16), (10, 26), (20, 36), (24, 40)]
    for window in windows:
        expected = predictor.predict(frames[window.start : window.end])
        torch.testing.assert_close(window.probabilities, expected, rtol=1e-5, atol=1e-7)
    assert [(window.start, window.end) for window in predictor.predict(iter(frames[:16]))] == [(0, 15), (1, 16)]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}])
def test_batches_that_are_none(wrong: dict[str, int], predictor: sifa.Predictor) -> None:
    with pytest.raises(ValueError, match="batch_size and workers must be at least 1"):
        predictor.predict([], **wrong)


@pytest.mark.parametrize(
    "wrong", [{"threads": 0}, {"threads": 1.5}, {"dtype": torch.int8}, {"dtype": "bfloat16"}, {"form": "fast"}]
)
def test_forms_that_are_none(wrong: dict[str, Any], folder: Path) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^{name} must be .*, got {re.escape(repr(value))}$"):
        sifa.load(folder / "last.pth", **wrong)


def test_averaged_weights_are_preferred(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = build(SETTINGS)[0].state_dict()
    path = write_checkpoint(tmp_path / "averaged.pth", ema=other)
    plain, averaged = sifa.load(folder / "last.pth"), sifa.load(path)
    assert torch.equal(averaged.model.state_dict()["fc.weight"], other["fc.weight"])
    assert not torch.equal(plain.model.state_dict()["fc.weight"], other["fc.weight"])


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    assert sifa.load(write_checkpoint(tmp_path / "last.pth", classes=[])).classes == ["0", "1", "2", "3", "4", "5"]


def test_a_short_video_repeats_its_last_frame(folder: Path) -> None:
    predictor = sifa.load(folder / "last.pth", num_clips=1, num_crops=1)
    assert predictor.span == 15
    enough, short = predictor.views(folder / "v3.avi")[0], predictor.views(folder / "v4.avi")[0]
    assert not torch.equal(enough[-1], enough[-2])
    assert all(torch.equal(short[4], frame) for frame in short[5:])
    assert not torch.equal(short[3], short[4])


def test_a_single_frame_is_no_video(folder: Path, tmp_path: Path) -> None:
    file = write_video(tmp_path / "still.avi", moving_square(1))
    with pytest.raises(DataError, match="has a single frame"):
        count_frames(file)
    with pytest.raises(DataError, match="has a single frame"):
        sifa.load(folder / "last.pth").predict(file)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "weights alone": ({"config": None}, "has no entry 'config'; it has model, epoch, classes"),
    "another version": ({"config": {"network": {"depth": 50}}}, "is of another version"),
    "other names": ({"classes": ["left", "right"]}, "is damaged: it names 2 classes of 6"),
    "no text": ({"trained_on": 8}, "is damaged: its entry 'trained_on' must be a str, got 8"),
    "other weights": ({"model": {"fc.weight": torch.zeros(2)}}, "does not fit this model"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_checkpoint_that_is_none(name: str, tmp_path: Path) -> None:
    entries, message = MISTAKES[name]
    path = write_checkpoint(tmp_path / "last.pth", **entries)
    if entries.get("config", "") is None:
        contents = torch.load(path, weights_only=True)
        del contents["config"]
        torch.save(contents, path)
    with pytest.raises(UserError, match=message) as caught:
        sifa.load(path)
    assert str(path) in str(caught.value)


def test_a_device_that_is_none(folder: Path) -> None:
    with pytest.raises(UserError, match="device gpu cannot be used"):
        sifa.load(folder / "last.pth", device="gpu")


def test_the_network_is_the_one_that_was_saved(folder: Path) -> None:
    saved = torch.load(folder / "last.pth", weights_only=True)["model"]
    network: nn.Module = sifa.load(folder / "last.pth").model
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())
