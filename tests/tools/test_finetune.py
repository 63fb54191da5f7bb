"""Videos and a checkpoint in; split, training, report, checkpoint out; stopped anywhere, the same command goes on."""

import csv
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

import sifa
import train_val_3d
from engine.config import load_config
from sifa.build import build_dataset
from sifa.finetune_source import SourceSpeed
from tests.tools.conftest import MakeCheckpoint
from tools import finetune

FRAMES, SIZE = 12, 40
CLASSES = ("circle", "square")


def write_video(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SIZE, SIZE))
    random = np.random.default_rng(seed)
    for _ in range(FRAMES):
        writer.write(random.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8))
    writer.release()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of three recordings with two clips each."""
    folder = tmp_path_factory.mktemp("my videos")
    for label, name in enumerate(CLASSES):
        for recording in "abc":
            for clip in (1, 2):
                seed = 100 * label + 10 * "abc".index(recording) + clip  # copies would count as one recording
                write_video(folder / name / f"{name} {recording}_{clip}.avi", seed)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: MakeCheckpoint) -> Path:
    """Of five other classes, with settings that no default has."""
    return make_checkpoint(
        tmp_path_factory.mktemp("start") / "last.pth",
        network={"net_name": "c2d_sifa_resnet26", "width": 4, "dropout_ratio": 0.1},
        SIFA={"sifa_kernel": [1, 3, 3, 5], "stages": ["res4", "res5"]},
        transform={"crop_size": 24},
        evaluation={"eva_crop_size": 28},
    )


def run(videos: Path, checkpoint: Path, out: Path, *more: str) -> int:
    """With --format=FRAME, because what is chosen without it depends on the time of the day."""
    options = ("--epochs=2", "--format=FRAME", "--set", "dataset.num_workers=0")
    return finetune.main([str(videos), f"--checkpoint={checkpoint}", f"--out={out}", *options, *more])


@pytest.fixture(scope="module")
def trained(videos: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "run"
    assert run(videos, checkpoint, out) == 0
    return out


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "checkpoints/last.pth", weights_only=True)["model"]


def test_what_it_leaves_behind(trained: Path) -> None:
    saved = torch.load(trained / "checkpoints/last.pth", weights_only=True)
    assert (saved["epoch"], saved["classes"]) == (2, list(CLASSES))
    for name in ("settings.yml", "videos.csv", "classes.txt", "log.txt", "report.html", "confusion.png", "scores.npz"):
        assert (trained / name).is_file(), name


def test_no_recording_is_on_both_sides(trained: Path) -> None:
    rows = list(csv.DictReader((trained / "videos.csv").open()))
    sides = {row["recording"]: {r["split"] for r in rows if r["recording"] == row["recording"]} for row in rows}
    assert len(sides) == 6
    assert all(len(side) == 1 for side in sides.values())
    for side, count in (("train", 4), ("val", 2)):
        wanted = [row for row in rows if row["split"] == side]
        assert [sum(row["label"] == name for row in wanted) for name in CLASSES] == [count, count]
        listed = {line.rsplit(" ", 2)[0] for line in (trained / f"{side}.txt").read_text().splitlines()}
        assert listed == {row["path"].removesuffix(".avi") for row in wanted}


def test_network_and_clips_are_the_checkpoints(trained: Path, checkpoint: Path) -> None:
    config = yaml.safe_load((trained / "config.yml").read_text())
    start = torch.load(checkpoint, weights_only=True)["config"]
    assert config["SIFA"] == start["SIFA"]
    assert {**config["network"], "pretrained_model": "", "dropout_ratio": 0.1} == start["network"]
    assert (config["transform"]["crop_size"], config["evaluation"]["eva_crop_size"]) == (24, 28)
    assert (config["dataset"]["clip_length"], config["dataset"]["num_steps"]) == (8, 1), "two thirds of 12 frames"
    assert config["dataset"]["num_classes"] == 2


def test_the_classifier_first_then_everything(trained: Path, checkpoint: Path, videos: Path, tmp_path: Path) -> None:
    optimization = yaml.safe_load((trained / "config.yml").read_text())["optimization"]
    assert optimization["freeze_epochs"] == 1
    start, end = torch.load(checkpoint, weights_only=True)["model"], weights(trained)
    assert not torch.equal(start["conv1.weight"], end["conv1.weight"])
    assert run(videos, checkpoint, tmp_path / "head", "optimization.freeze_epochs=0") == 0
    head = weights(tmp_path / "head")
    for name, value in head.items():
        assert name.startswith("fc") or torch.equal(value, start[name]), name


@pytest.mark.parametrize(
    ("classes", "kept"), [(("jump", "sit"), False), ((), False), (CLASSES, True)], ids=["others", "unnamed", "same"]
)
def test_as_many_other_classes_get_a_new_classifier(
    classes: Sequence[str], kept: bool, videos: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Trained for two epochs of one step at next to no learning rate, it ends as it began."""
    contents = torch.load(checkpoint, weights_only=True)
    model = contents["model"]
    model |= {name: torch.randn_like(value[:2]) for name, value in model.items() if name.startswith("fc")}
    config = contents["config"]
    config["dataset"]["num_classes"] = 2
    torch.save({**contents, "classes": list(classes)}, tmp_path / "two.pth")
    options = "optimization.base_learning_rate=1e-9", "optimization.weight_decay=0"
    assert run(videos, tmp_path / "two.pth", tmp_path / "out", *options) == 0
    end = weights(tmp_path / "out")
    for name in ("fc.weight", "fc_dual.weight"):
        assert torch.allclose(end[name], model[name], atol=1e-5) == kept, name


def test_classes_that_are_numbers(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Folders 2 and 10 are two classes, neither eleven nor three; what they are called is kept."""
    for name, number in zip(CLASSES, ("10", "2"), strict=True):
        shutil.copytree(videos / name, tmp_path / "numbers" / number)
    out = tmp_path / "out"
    assert run(tmp_path / "numbers", checkpoint, out) == 0
    assert torch.load(out / "checkpoints/last.pth", weights_only=True)["classes"] == ["2", "10"]
    labels = {line.split("/")[0]: line.split()[-1] for line in (out / "train.txt").read_text().splitlines()}
    assert labels == {"2": "0", "10": "1"}


def test_a_class_name_that_is_no_line(
    videos: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(videos / "circle", tmp_path / "odd/circle")
    shutil.copytree(videos / "square", tmp_path / "odd" / "squ\nare")
    assert "a class name must be one line" in mistake(capfd, tmp_path / "odd", checkpoint, tmp_path / "out")


@pytest.mark.parametrize("stopped_in", ["extraction", "training"])
def test_the_same_command_goes_on(
    stopped_in: str, videos: Path, checkpoint: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with the weights of one that nothing stopped."""
    out = tmp_path / "run"

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if stopped_in == "extraction":
            patch.setattr(finetune, "split_text", stop)
        else:
            validate: Callable[..., Any] = train_val_3d.Trainer.validate_if_due
            patch.setattr(
                train_val_3d.Trainer,
                "validate_if_due",
                lambda trainer: stop() if trainer.state.epoch == 1 else validate(trainer),
            )
        assert run(videos, checkpoint, out) == 130
    assert run(videos, checkpoint, out) == 0
    expected = weights(trained)
    for name, value in weights(out).items():
        assert torch.equal(value, expected[name]), name
    # And once more: nothing is left to do but the report.
    before = (out / "checkpoints/last.pth").stat().st_mtime_ns
    assert run(videos, checkpoint, out) == 0
    assert (out / "checkpoints/last.pth").stat().st_mtime_ns == before


def test_a_training_goes_on_for_longer_as_the_message_says(
    videos: Path, checkpoint: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    for name in ("settings.yml", "config.yml"):
        text = (tmp_path / "run" / name).read_text().replace(str(trained), str(tmp_path / "run"))
        (tmp_path / "run" / name).write_text(text)
    assert run(videos, checkpoint, tmp_path / "run", "optimization.epochs=3") == 0
    saved = torch.load(tmp_path / "run/checkpoints/last.pth", weights_only=True)
    assert saved["epoch"] == 3
    out = capsys.readouterr().out
    assert "validation top-1 so far  " in out
    last = out.splitlines()[-3:]
    assert re.match(
        r"[\d.]+ % of 4 validation videos are right: the 95 % interval of so many is .*, chance is 50.0 %", last[0]
    )
    assert last[2] == f"next: python -m tools.predict VIDEO --checkpoint {tmp_path / 'run'}"
    assert "Only 4 validation videos: an accuracy of 50 % could then be anything from 15 to 85 %" in out
    assert "<h2>The training</h2>" in (tmp_path / "run/report.html").read_text()


def test_what_is_said_is_what_is_trained_on(
    videos: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole recording cannot be read: the table, videos.csv and the lists are of the others."""
    shutil.copytree(videos, tmp_path / "videos")
    for clip in (1, 2):
        (tmp_path / f"videos/circle/circle b_{clip}.avi").write_bytes(b"no video")
    monkeypatch.setattr(train_val_3d, "main", lambda _: 5)  # what is looked at was said and written by then
    assert run(tmp_path / "videos", checkpoint, tmp_path / "out") == 5
    out = capsys.readouterr().out
    (circle,) = [line.split() for line in out.splitlines() if line.startswith("circle")]
    assert circle == ["circle", "2", "2", "2"], "train, val, recordings"
    assert f"2 of 12 videos cannot be read; {tmp_path / 'out/videos.report.tsv'} says why" in out
    rows = list(csv.DictReader((tmp_path / "out/videos.csv").open()))
    assert [row["path"] for row in rows if row["split"] == "skipped"] == [f"circle/circle b_{i}.avi" for i in (1, 2)]
    for side, squares in (("train", 4), ("val", 2)):
        listed = (tmp_path / f"out/{side}.txt").read_text().splitlines()
        assert sorted(line.split("/")[0] for line in listed) == ["circle"] * 2 + ["square"] * squares
        wanted = {row["path"].removesuffix(".avi") for row in rows if row["split"] == side}
        assert {line.rsplit(" ", 2)[0] for line in listed} == wanted


@pytest.mark.parametrize("fast", [True, False])
def test_videos_or_frames_are_trained_from_as_a_measurement_says(
    fast: bool,
    videos: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measure, out = finetune.measure_source, tmp_path / "out"

    def measured(predictor: sifa.Predictor, *arguments: Any) -> SourceSpeed:
        before = {name: value.clone() for name, value in predictor.model.state_dict().items()}
        speed = measure(predictor, *arguments)
        assert min(speed.decoding, speed.network) > 0
        assert all(torch.equal(value, before[name]) for name, value in predictor.model.state_dict().items())
        return replace(speed, decoding=1.0, network=1.5 if fast else 0.5)

    monkeypatch.setattr(finetune, "measure_source", measured)
    monkeypatch.setattr(train_val_3d, "main", lambda _: 5)
    options = [str(videos), f"--checkpoint={checkpoint}", f"--out={out}", "--set", "dataset.num_workers=0"]
    assert finetune.main(options) == 5
    said = capsys.readouterr().out
    assert ("Straight from the videos, no frames are extracted: a clip takes 1000 ms" in said) == fast
    assert ("Frames are extracted, because videos are too slow: a clip takes 1000 ms" in said) != fast
    data = yaml.safe_load((out / "settings.yml").read_text())["dataset"]
    root = videos if fast else out / "frames"
    assert (data["format"], data["root_path"]) == ("VIDEO" if fast else "FRAME", str(root))
    listed = [line.rsplit(" ", 2) for line in (out / "train.txt").read_text().splitlines()]
    assert len(listed) == 8
    assert all((root / path).exists() and frames == str(FRAMES) for path, frames, _ in listed)
    # A training that has begun keeps its format, whatever would be measured now.
    (out / "checkpoints").mkdir()
    (out / "checkpoints/last.pth").touch()
    monkeypatch.setattr(finetune, "measure_source", lambda *_: pytest.fail("it is decided"))
    assert finetune.main(options) == 5


def test_a_training_straight_from_the_videos(videos: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert run(videos, checkpoint, tmp_path / "out", "--format=VIDEO", "--epochs=1") == 0
    assert "videos: decoded by " in (tmp_path / "out/log.txt").read_text()
    assert not (tmp_path / "out/frames").exists()


def test_frames_in_shards(videos: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_val_3d, "main", lambda _: 5)
    assert run(videos, checkpoint, tmp_path / "out", "--format=SHARDS") == 5
    config = load_config(tmp_path / "out/settings.yml")
    train, val = (build_dataset(config, train=train) for train in (True, False))
    assert (len(train.videos), len(val.videos)) == (8, 4)
    assert train.shards == [0] * 8
    assert train[3, 0][0].shape == (*val[3][0].shape[:1], 24, 24, 3)


# ---- Mistakes: one line, exit code 2 --------------------------------------------------------------------------------


def mistake(capfd: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert run(*arguments) == 2
    error = capfd.readouterr().err
    assert "Traceback" not in error
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    return line


def test_wrong_videos(videos: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "VIDEO_FOLDER must be a folder" in mistake(capfd, tmp_path / "nowhere", checkpoint, out)
    (tmp_path / "empty").mkdir()
    assert "there is no video in the sub-folders" in mistake(capfd, tmp_path / "empty", checkpoint, out)
    assert "is in no class folder" in mistake(capfd, videos / "circle", checkpoint, out)
    shutil.copytree(videos / "circle", tmp_path / "one/circle")
    assert "two classes at least" in mistake(capfd, tmp_path / "one", checkpoint, out)
    shutil.copytree(videos, tmp_path / "split/train")
    shutil.copytree(videos, tmp_path / "split/val")
    assert "must be classes, they are train, val" in mistake(capfd, tmp_path / "split", checkpoint, out)
    for name in ("a/x_1.avi", "a/y_1.avi", "b/x_1.avi", "b/y_1.avi"):
        (tmp_path / "broken" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "broken" / name).write_bytes(b"no video " + name.encode())
    assert "broken can be read" in mistake(capfd, tmp_path / "broken", checkpoint, out)
    shutil.copy(videos / "circle/circle a_1.avi", tmp_path / "broken/a/x_1.avi")
    assert "no video of the class 'b' can be read" in mistake(capfd, tmp_path / "broken", checkpoint, out)


def test_wrong_splits(videos: Path, checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    where = videos, checkpoint, tmp_path / "out"
    assert "nothing is left to validate on" in mistake(capfd, *where, "--group=circle|square")
    assert "there is no recording 'x'; there are 6: circle a," in mistake(capfd, *where, "--validate=x")
    assert "none is left to train on" in mistake(capfd, *where, "--group=circle|square", "--validate=circle")
    assert "must be above 0 and below 1" in mistake(capfd, *where, "--share=1.5")
    assert "--seed must be in 0.." in mistake(capfd, *where, "--seed=-1")


def test_wrong_checkpoints(
    videos: Path, checkpoint: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "nowhere.pth does not exist" in mistake(capfd, videos, tmp_path / "nowhere.pth", out)
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "other.pth")
    assert "other.pth has no entry 'config'" in mistake(capfd, videos, tmp_path / "other.pth", out)
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert "text.pth is no checkpoint" in mistake(capfd, videos, tmp_path / "text.pth", out)


def test_options_are_checked_before_the_extraction(
    videos: Path,
    checkpoint: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finetune, "extract_videos", lambda *_, **__: pytest.fail("this is hours later"))
    out = tmp_path / "out"
    where = videos, checkpoint, out
    assert "--set optimization.epoch=3: unknown key optimization.epoch" in mistake(
        capfd, *where, "optimization.epoch=3"
    )
    for epochs in ("0", "-1"):
        assert f"error: --epochs must be at least 1, got {epochs}" == mistake(capfd, *where, f"--epochs={epochs}")
    assert not out.exists()
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'} is a file, a folder is wanted" in mistake(capfd, videos, checkpoint, tmp_path / "file")
    for folder in (tmp_path / "file/out", Path("/proc/out")):
        assert f"the folder {folder} cannot be written to" in mistake(capfd, videos, checkpoint, folder)


def test_a_folder_of_another_training(
    videos: Path, checkpoint: Path, trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    line = mistake(capfd, videos, checkpoint, trained, "--share=0.6")
    assert "holds a training of other videos or options (videos.csv would change): give another --out" in line
    line = mistake(capfd, videos, checkpoint, trained, "--epochs=3")
    assert (
        "holds a training with other settings (optimization.epochs 2 -> 3): the options of before continue it" in line
    )
    assert (
        "; these and --set optimization.epochs=3 train it to epoch 3; for another training give another --out" in line
    )
    fewer = tmp_path / "fewer"
    shutil.copytree(videos, fewer, ignore=shutil.ignore_patterns("* c_1.avi"))
    listed = (trained / "videos.txt").read_text()
    assert "(videos.csv would change)" in mistake(capfd, fewer, checkpoint, trained)
    assert (trained / "videos.txt").read_text() == listed, "nothing of the training was touched"
