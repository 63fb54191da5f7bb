"""What is measured against computes the same, and reports hold what they should."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import bench_loader
from benchmarks.baselines import by_gather, by_grid_sample
from benchmarks.pillow import RECIPES
from cuda_sifa import reference
from tests.op.cases import Case, relative_error


@pytest.mark.parametrize("function", [by_gather, by_grid_sample])
@pytest.mark.parametrize("offset", [1.0, None])
def test_the_baselines_are_the_op(function: Callable, offset: float | None) -> None:
    x, field = Case(offset=offset).inputs(torch.float32)
    assert relative_error(function(x, field), reference.inter_frame_attention(x, field)) < 1e-5


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be bound to a core here")
def test_the_loaders_benchmark_reports_every_recipe_and_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = [
        "--clips=8",
        "--rounds=1",
        "--samples=16",
        "--workers",
        "1",
        "--length=2",
        "--crop=16",
        "--size",
        "24",
        "32",
    ]
    bench_loader.main([*tiny, f"--out={tmp_path}/loader.md"])
    text = (tmp_path / "loader.md").read_text()
    assert capsys.readouterr().out == text
    for recipe in RECIPES:
        assert len(re.findall(rf"^\| {re.escape(recipe)} \|", text, re.M)) == 3, "speed, stages, grey levels"
    # A stage whose function is gone, or no longer called, would leave its column empty.
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| jitter and blur")]
    times = dict(zip([*bench_loader.STAGES, "rest"], rows[1][1:], strict=False))
    assert {stage for stage, cell in times.items() if cell.strip()} == {*bench_loader.STAGES, "rest"} - {"RandAugment"}
    assert re.search(r"^8: \d+, 16: \d+$", text, re.M), "memory"


def test_a_recipe_has_the_greys_of_the_reference(tmp_path: Path) -> None:
    bench_loader.write_clips(tmp_path / "frames", 6, 1, 48, 60)
    bench_loader.write_list(tmp_path / "frames", tmp_path / "list.txt", 1)
    found = bench_loader.agreement(bench_loader.Clips(tmp_path / "frames", tmp_path / "list.txt", 1, 32), 100)
    for recipe, (mean, deviation, other_mean, other_deviation, difference) in found.items():
        assert mean == pytest.approx(other_mean, abs=0.5), recipe
        assert deviation == pytest.approx(other_deviation, abs=0.5), recipe
        assert difference < 1.5, recipe


def test_a_folder_without_frames_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, message in ((tmp_path, "has no folder with 16 frames"), (tmp_path / "no", "does not exist")):
        with pytest.raises(SystemExit) as caught:
            bench_loader.main([f"--frames={folder}"])
        error = capsys.readouterr().err
        assert (caught.value.code, error.count("\n")) == (2, 1)
        assert error.startswith("error: ")
        assert message in error
