"""benchmarks/recipe_modules.py on drawn clips: both ways are trained, answers are kept, and nothing is done twice."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.motion_tables import answers
from benchmarks.recipe_modules import RESULTS, main, page
from engine.scores import load_scores
from sifa import seeds
from tests.models.test_real_motion import write_videos

NARROW = ["--set", "network.width=4", "optimization.epochs=1", "transform.crop_size=32"]
NARROW += ["transform.short_side=[32,36]", "evaluation.eva_crop_size=32", "dataset.num_segments=4"]
NARROW += ["dataset.num_workers=0", "optimization.batch_size=2"]


def test_the_study_trains_both_ways_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_videos(tmp_path)
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = [str(tmp_path), "--runs", str(runs), "--out", str(out), "--seeds", "3", "--contestants", "temporal shift"]
    assert main([*command, *NARROW]) == 0, capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())
    assert [cell["split"] for cell in results["cells"]] == ["tested on 1", "tested on 2"]
    for cell in results["cells"]:
        scores = load_scores(runs / f"temporal_shift_part_{cell['split'][-1]}" / "seed_3")
        right = scores.of_all_views().argmax(1) == scores.labels
        assert cell["right"] == "".join(str(int(one)) for one in right)
        assert results["videos"][f"labels, {cell['split']}"]["samples"] == scores.videos
    tested = [set(results["videos"][f"labels, tested on {part}"]["samples"]) for part in "12"]
    assert not tested[0] & tested[1]
    assert "| temporal shift | 10 | 1, 1 |" in (out / "recipe_modules.md").read_text()
    assert (out / "recipe_modules.png").stat().st_size > 1000

    monkeypatch.setattr(seeds, "_start", lambda *_: pytest.fail("a run that is kept was started again"))
    before = (out / "results.json").read_bytes()
    assert main([*command, *NARROW]) == 0
    assert (out / "results.json").read_bytes() == before
    del results["settings"]["SIFA.cosine"]  # as of a version that did not have it
    (out / "results.json").write_text(json.dumps(results))
    assert main([*command, *NARROW]) == 0
    assert main([*command, *NARROW, "--set", "SIFA.cosine=true"]) == 2
    assert "was made with {'SIFA.cosine': False}, now it is {'SIFA.cosine': True}" in capsys.readouterr().err
    results["videos"]["labels, tested on 1"]["samples"][0] = "another"
    (out / "results.json").write_text(json.dumps(results))
    assert main([*command, *NARROW]) == 2
    assert "kept for labels, tested on 1 are of other videos" in capsys.readouterr().err
    assert main([*command, *NARROW, "--set", "optimization.epochs=2"]) == 2
    assert "was made with {'optimization.epochs': 1" in capsys.readouterr().err


def test_folds_of_groups_and_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part is tested on, the others are trained on; an interval draws whole groups; a start is one file."""
    write_videos(tmp_path)
    drop_what_does_not_exist(tmp_path / "labels.csv")
    runs, out = tmp_path / "the: runs # 1 😀", tmp_path / "out"
    command = [str(tmp_path), "--part", "speaker", "--parts", "speaker 0,speaker 3", "speaker 1,speaker 2,speaker 4"]
    command += ["--runs", str(runs), "--out", str(out), "--seeds", "3", "--contestants", "temporal shift"]
    command += ["--group", "speaker"]
    assert main([*command, *NARROW]) == 0, capsys.readouterr().err
    first = runs / "temporal_shift_part_1" / "seed_3" / "checkpoints" / "last.pth"
    started = [*command, "--starts", f"drawn={first}"]
    assert main([*started, *NARROW]) == 0, capsys.readouterr().err

    results = json.loads((out / "results.json").read_text())
    assert {cell["contestant"] for cell in results["cells"]} == {"temporal shift", "temporal shift, from drawn"}
    assert len(results["cells"]) == 4
    tested = results["videos"]["labels, tested on speaker 0,speaker 3"]
    assert sorted(set(tested["groups"])) == ["speaker 0", "speaker 3"]
    trained = (runs / "part_1.train.txt").read_text()
    assert len(trained.splitlines()) == 6
    assert not any(sample in trained for sample in tested["samples"])
    gathered = answers(results, "labels", 4)
    assert gathered is not None
    assert sorted(set(gathered.groups)) == [f"speaker {number}" for number in range(5)]
    gain = 100 * np.subtract(*(gathered.of[f"temporal shift{name}"].mean() for name in (", from drawn", "")))
    row = (out / "recipe_modules.md").read_text().split("| temporal shift, from drawn |")[2]
    assert float(row.split("|")[0]) == pytest.approx(gain, abs=0.06)
    config = yaml.safe_load((runs / "temporal_shift,_from_drawn_part_1" / "seed_3" / "config.yml").read_text())
    assert config["network"]["pretrained_model"] == str(first)

    first.write_bytes(b"another")
    assert main([*started, *NARROW]) == 2
    assert "for the start drawn are of another file" in capsys.readouterr().err


def drop_what_does_not_exist(labels: Path) -> None:
    rows = labels.read_text(encoding="utf-8").splitlines(keepends=True)
    labels.write_text("".join(row for row in rows if not row.startswith("kept/")), encoding="utf-8")


def test_a_video_that_cannot_be_read_is_not_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_videos(tmp_path)
    command = [str(tmp_path), "--parts", "1", "3", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "1 of 6 videos cannot be read" in capsys.readouterr().err


def test_kept_results_of_before_are_still_taken() -> None:
    """Those in the repository have no groups."""
    results = json.loads((RESULTS / "results.json").read_text())
    gathered = answers(results, "labels", 4)
    assert gathered is not None
    assert list(gathered.groups) == list(gathered.videos)
    assert page(results) == (RESULTS / "recipe_modules.md").read_text()


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (["last.pth"], "must be NAME=FILE"),
        (["drawn=nowhere.pth"], "there is no file nowhere.pth"),
        ([f"drawn={__file__}", f"drawn={__file__}"], "each name once"),
    ],
)
def test_a_start_that_cannot_be(
    tmp_path: Path, starts: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--starts", *starts]) == 2
    assert message in capsys.readouterr().err


def test_a_start_and_the_same_weights_for_all_exclude_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(tmp_path), "--out", str(tmp_path / "out"), "--starts", f"drawn={__file__}"]
    assert main([*command, "--set", "network.pretrained_model=last.pth"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_it_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert "columns path, label, repetition" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    for option, values in (("--seeds", "1 1"), ("--parts", "1 1"), ("--parts", "1"), ("--parts", "1,2 2,3")):
        assert main([str(tmp_path), "--out", str(tmp_path / "out"), option, *values.split()]) == 2
        message = capsys.readouterr().err
        assert option in message
        assert "different from each other" in message
    write_videos(tmp_path)
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--group", "place"]) == 2
    assert "has no column place" in capsys.readouterr().err
