"""Files that earlier versions wrote still load, with the same results: see tests/old_files/README.txt."""

import json
import lzma
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import sifa
import train_val_3d
from datasets.annotations import read_list
from engine.checkpoint import read_checkpoint
from engine.config import load_config
from engine.scores import load_scores
from tests.script import write_frames

OLD, ROOT = Path(__file__).parent / "old_files", Path(__file__).parents[1]
CHECKPOINTS = ("sifa_net.pth", "sifa_net_mid_epoch.pth", "sifa_transformer.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, with the checkpoints unpacked, and frames of the videos of the list."""
    folder = tmp_path_factory.mktemp("old")
    shutil.copytree(OLD, folder, dirs_exist_ok=True)
    for name in CHECKPOINTS:
        (folder / name).write_bytes(lzma.decompress((OLD / f"{name}.xz").read_bytes()))
    write_frames(folder / "frames")
    return folder


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_networks_give_the_same_logits(name: str, folder: Path) -> None:
    network = sifa.load(folder / name).model
    clip = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = json.loads((OLD / "logits.json").read_text())[name]
    states = [None, *([read_checkpoint(folder / name)["model"]] if len(expected) > 1 else [])]
    for state, heads in zip(states, expected.values(), strict=True):
        if state is not None:
            network.load_state_dict(state)
        with torch.no_grad():
            for got, wanted in zip(network(clip), heads, strict=True):
                torch.testing.assert_close(got, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


def test_settings_and_what_a_run_resolved_them_to() -> None:
    assert load_config(OLD / "settings.yml") == load_config(OLD / "config.yml")
    assert load_config(OLD / "settings.yml").optimization.layer_multipliers == {
        "*.temporal.offset.weight": 0.1,
        "fc.*": 2.0,
    }


def test_the_settings_of_a_fine_tuning(tmp_path: Path) -> None:
    text = (OLD / "finetune/settings.yml").read_text()
    for mark, value in (("@OUT@", tmp_path), ("@REPOSITORY@", ROOT), ("@FOLDER@", OLD)):
        text = text.replace(mark, str(value))
    (tmp_path / "settings.yml").write_text(text)
    assert load_config(tmp_path / "settings.yml").optimization.freeze


def test_scores_and_lists() -> None:
    assert load_scores(OLD / "scores.npz").probabilities.shape == (7, 6, 2)
    assert [video.path for video in read_list(OLD / "list.txt", num_classes=2)] == [f"v {i}" for i in range(7)]


@pytest.mark.parametrize(
    ("name", "network"),
    [("sifa_net.pth", "network.dual_head=false"), ("sifa_net_mid_epoch.pth", "network.dual_head=true")],
)
def test_trainings_resume(name: str, network: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)  # paths in the settings are relative
    output = folder / "output" / name
    argv = ["--config_file=settings.yml", f"--resume={name}", "--set", network, f"output_dir={output}"]
    assert train_val_3d.main([*argv, "optimization.epochs=3"]) == 0
    log = (output / "log.txt").read_text()
    assert f"resumed from {name} after epoch" in log
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert (lines[-1]["epoch"], lines[-1]["split"]) == (3, "val")
    assert all(np.isfinite(line["loss"]) for line in lines)
