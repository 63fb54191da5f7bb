"""benchmarks/recipe_modules.py on drawn clips: both ways are trained, answers are kept, and nothing is done twice."""

import json
from pathlib import Path

import pytest

from benchmarks.motion_tables import answers
from benchmarks.recipe_modules import main
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
        scores = load_scores(runs / f"temporal_shift_{cell['split'].replace(' ', '_')}" / "seed_3")
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
    results["videos"]["labels, tested on 1"]["samples"][0] = "another"
    (out / "results.json").write_text(json.dumps(results))
    assert main([*command, *NARROW]) == 2
    assert "kept for labels, tested on 1 are of other videos" in capsys.readouterr().err
    assert main([*command, *NARROW, "--set", "optimization.epochs=2"]) == 2
    assert "was made with {'optimization.epochs': 1" in capsys.readouterr().err


def test_parts_of_several_values_and_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part is tested on, the others are trained on; an interval draws the values of a part whole."""
    write_videos(tmp_path)
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = [str(tmp_path), "--part", "speaker", "--parts", "speaker 0,speaker 3", "speaker 1,speaker 2,speaker 4"]
    command += ["--runs", str(runs), "--out", str(out), "--seeds", "3", "--contestants", "temporal shift"]
    assert main([*command, *NARROW]) == 0, capsys.readouterr().err
    first = runs / "temporal_shift_tested_on_speaker_0,speaker_3" / "seed_3"
    command += ["--starts", f"drawn={first / 'checkpoints/last.pth'}"]
    assert main([*command, *NARROW]) == 0, capsys.readouterr().err

    results = json.loads((out / "results.json").read_text())
    assert {cell["contestant"] for cell in results["cells"]} == {"temporal shift", "temporal shift, from drawn"}
    assert len(results["cells"]) == 4
    tested = results["videos"]["labels, tested on speaker 0,speaker 3"]
    assert sorted(set(tested["groups"])) == ["speaker 0", "speaker 3"]
    trained = (runs / "all but speaker 0,speaker 3.txt").read_text()
    assert len(trained.splitlines()) == 6
    assert not any(sample in trained for sample in tested["samples"])
    gathered = answers(results, "labels", 4)
    assert gathered is not None
    assert sorted(set(gathered.groups)) == [f"speaker {number}" for number in range(5)]
    shift, started = (gathered.of[name][0] for name in ("temporal shift", "temporal shift, from drawn"))
    gain = 100 * (started.mean() - shift.mean())
    page = (out / "recipe_modules.md").read_text()
    assert f"| temporal shift, from drawn | {gain:+.1f} |" in page.split("What a start gives")[1]
    settings = (runs / "temporal_shift,_from_drawn_tested_on_speaker_0,speaker_3" / "seed_3" / "config.yml").read_text()
    assert f"pretrained_model: {first / 'checkpoints/last.pth'}" in settings


@pytest.mark.parametrize(
    ("start", "message"),
    [("last.pth", "must be NAME=FILE"), ("drawn=nowhere.pth", "there is no file nowhere.pth")],
)
def test_a_start_that_cannot_be(tmp_path: Path, start: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--starts", start]) == 2
    assert message in capsys.readouterr().err


def test_it_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
    assert "columns path, label, repetition" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    for option in ("--seeds", "--parts"):
        assert main([str(tmp_path), "--out", str(tmp_path / "out"), option, "1", "1"]) == 2
        assert "different from each other" in capsys.readouterr().err
