"""The split and the settings of a fine-tuning."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

import sifa
from common.errors import UserError
from datasets.preparation.sources import Source
from engine.config import load_config
from sifa.finetune import FinetuneFolder, finetune_settings
from sifa.finetune_videos import SplitRow, split_table, split_text, split_videos
from tests.tiny import write_checkpoint

CLASSES = ("circle", "square")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("finetune") / "last.pth")


def test_recordings_as_the_user_says() -> None:
    videos = [
        Source(f"{name}/{name} {recording}_{clip}.avi", name)
        for name in CLASSES
        for recording in "abc"
        for clip in (1, 2)
    ]
    rows, unnamed = split_videos(videos, group=r" (\w)_", validate="b")
    assert {(row.recording, row.split) for row in rows} == {("a", "train"), ("b", "val"), ("c", "train")}
    assert not unnamed


def written_settings(
    checkpoint: Path, *, classes: Sequence[str] = CLASSES, epochs: int | None = None
) -> dict[str, Any]:
    text = finetune_settings(
        sifa.load(checkpoint),
        checkpoint=checkpoint,
        name="videos",
        out=Path("out"),
        root=Path("out/frames"),
        classes=classes,
        lengths=[12] * 8,
        epochs=epochs,
    )
    return yaml.safe_load(text)


def test_all_but_the_classifiers_is_frozen_first(checkpoint: Path) -> None:
    patterns = [f"{name}.*" for name in sifa.load(checkpoint).model.body()]
    assert patterns == ["conv1.*", "bn1.*", *(f"layer{i}.*" for i in range(1, 5)), "layer4_dual.*"]


def test_clips_are_not_flipped_where_a_class_tells_sides(checkpoint: Path) -> None:
    assert "horizontal_flip" not in written_settings(checkpoint)["transform"]
    assert written_settings(checkpoint, classes=("turn_left", "walk"))["transform"]["horizontal_flip"] is False


def test_settings_are_of_use_from_any_folder(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(checkpoint, tmp_path / "start.pth")
    monkeypatch.chdir(tmp_path)
    values = written_settings(Path("start.pth"))
    data = {f"dataset.{key}": values["dataset"][key] for key in ("root_path", "list_file", "eva_list_file")}
    files = {key: values[key] for key in ("base", "output_dir")} | data
    assert {key: file for key, file in files.items() if not Path(file).is_absolute()} == {}
    assert values["network"]["pretrained_model"] == str(tmp_path / "start.pth")


def test_one_epoch(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yml").write_text(yaml.safe_dump(written_settings(checkpoint, epochs=1)))
    optimization = load_config(tmp_path / "settings.yml").optimization
    assert (optimization.epochs, optimization.warmup_epoch, optimization.freeze_epochs) == (1, 0, 1)


@pytest.mark.parametrize(("videos", "said"), [(8, "from 22 to 78 %"), (50, "")])
def test_too_few_validation_videos_are_said(videos: int, said: str) -> None:
    rows = [SplitRow(f"a/{i}.mp4", "a", str(i), "val") for i in range(videos)]
    text = split_text([*rows, SplitRow("b/1.mp4", "b", "b", "train")], [])
    assert said in text
    assert ("Only" in text) == bool(said)


def test_a_training_that_has_begun_keeps_its_settings(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.pth").touch()
    text = "base: a\ndataset: {num_workers: 3, num_steps: 2}\n"
    folder = FinetuneFolder(tmp_path)
    folder.write_settings(text)
    folder.write_settings("base: a\ndataset: {num_steps: 2, num_workers: 7}\nevaluation: {eva_inter_freq: 9}\n")
    assert (tmp_path / "settings.yml").read_text() == text
    with pytest.raises(UserError, match=r"\(dataset.num_steps 2 -> 3\): the options of before continue it;"):
        folder.write_settings("base: a\ndataset: {num_steps: 3}\n")


def test_a_training_of_a_version_without_a_key_goes_on(tmp_path: Path) -> None:
    """The section SIFA is written whole, so what is missing there did not exist."""
    (tmp_path / "checkpoints").mkdir()
    folder = FinetuneFolder(tmp_path)
    folder.write_settings("base: a\nSIFA: {offset: regular}\n")
    (tmp_path / "checkpoints/last.pth").touch()
    begun = FinetuneFolder(tmp_path)
    begun.write_settings("base: a\nSIFA: {offset: regular, cosine: false}\n")
    with pytest.raises(UserError, match=r"SIFA\.cosine False -> True"):
        begun.write_settings("base: a\nSIFA: {offset: regular, cosine: true}\n")
    with pytest.raises(UserError, match=r"optimization\.epochs None -> 64"):  # the default, but `a` may say another
        begun.write_settings("base: a\nSIFA: {offset: regular}\noptimization: {epochs: 64}\n")


def test_names_in_the_split_are_harmless(tmp_path: Path) -> None:
    rows = [SplitRow("=a/1.mp4", "=a", "=a", "train"), SplitRow("\x1b/1.mp4", "\x1b[31m", "r", "val")]
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.pth").touch()
    FinetuneFolder(tmp_path).write_split(rows)
    assert (tmp_path / "videos.csv").read_text().splitlines()[1] == "'=a/1.mp4,'=a,'=a,train"
    FinetuneFolder(tmp_path).open([Source(row.path, row.label) for row in rows], ["=a", "\x1b[31m"])  # the same videos
    assert split_table(rows).replace("\n", "").isprintable()
