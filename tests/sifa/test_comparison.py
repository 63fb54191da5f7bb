"""A comparison's figures against values computed by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from engine.scores import Scores, save_scores
from sifa.comparison import Runs, compare, comparison_tables, read_runs
from sifa.tables import as_text
from tools import compare as command

CLASSES = ["jump", "sit"]


def scores(hits: Sequence[bool], videos: Sequence[str] | None = None, **changes: Any) -> Scores:
    """Videos of both classes in turn, each classified rightly or wrongly with certainty 0.8."""
    labels = np.arange(len(hits)) % 2
    answers = np.where(hits, labels, 1 - labels)
    values: dict[str, Any] = {
        "videos": list(videos or (f"v{i}" for i in range(len(hits)))),
        "labels": labels,
        "probabilities": np.where(np.arange(2) == answers[:, None], 0.8, 0.2).astype(np.float32)[:, None],
        "classes": CLASSES,
        "clips": 1,
        "crops": 1,
        "list_file": "val.txt",
        "root_path": "frames",
        "format": "FRAME",
        "frame_template": "",
        "first_frame": 1,
    }
    return Scores(**{**values, **changes})


def runs(*hits: Sequence[bool], settings: dict[str, Any] | None = None) -> Runs:
    return Runs("a", [scores(one) for one in hits], settings or {})


FIRST = [True] * 50 + [False] * 30 + [True] * 6 + [False] * 14  # 56 of 100 are right
SECOND = [True] * 50 + [False] * 30 + [False] * 6 + [True] * 14  # 64: 6 lost, 14 gained


def exact_interval(only_first: int, only_second: int, videos: int) -> tuple[float, float]:
    """What the bootstrap estimates by chance, without chance: in percent, of all resamples with their weights.

    A resample adds up `videos` draws of -1, 0 or 1. The distribution of the sum is that of one draw, convolved with
    itself so often.
    """
    draw = np.array([only_first, videos - only_first - only_second, only_second]) / videos
    total = np.ones(1)
    for _ in range(videos):
        total = np.convolve(total, draw)
    below = np.cumsum(total)  # of the sums -videos..videos
    low, high = (int(np.searchsorted(below, share)) - videos for share in (0.025, 0.975))
    return 100 * low / videos, 100 * high / videos


def test_the_interval_of_a_comparison_of_two_networks_of_the_demo() -> None:
    """98.0 and 98.5 % of 200 videos: three that only the first has right, four that only the second has."""
    first = [True] * 193 + [True] * 3 + [False] * 4
    second = [True] * 193 + [False] * 3 + [True] * 4
    result = compare(runs(first), runs(second))
    assert exact_interval(3, 4, 200) == (-2.0, 3.0)
    assert (result.difference.low, result.difference.high) == pytest.approx((-2.0, 3.0), abs=0.5)
    assert result.mcnemar is not None
    assert result.mcnemar.p == pytest.approx(min(1, 2 * (1 + 7 + 21 + 35) / 128))


def test_the_difference_its_interval_and_mcnemars_test() -> None:
    result = compare(runs(FIRST), runs(SECOND))
    assert (result.videos, result.first.value, result.second.value) == (100, 56.0, 64.0)
    assert result.mcnemar is not None
    assert (result.mcnemar.only_first, result.mcnemar.only_second) == (6, 14)
    # Of 20 videos 6 or fewer on one side, both sides: 2 * sum of C(20, i) / 2^20.
    assert result.mcnemar.p == pytest.approx(2 * (1 + 20 + 190 + 1140 + 4845 + 15504 + 38760) / 1048576)
    assert result.difference.value == pytest.approx(8)
    assert (result.difference.low, result.difference.high) == pytest.approx(exact_interval(6, 14, 100), abs=1)
    assert "0: these videos do not tell which is better" in as_text(comparison_tables(result)).replace("\n", " ")
    assert len(result.changed) == 20
    assert result.changed[0] == ("v80", "jump", "jump", "sit")


def test_classes_that_gained_and_lost() -> None:
    one = compare(runs([True, False, True, True]), runs([False, True, True, True]))
    assert [(c.name, c.videos, c.first, c.second) for c in one.classes] == [
        ("sit", 2, 50.0, 100.0),
        ("jump", 2, 100.0, 50.0),
    ]
    assert compare(runs(FIRST), runs(FIRST)).classes == []


def test_videos_are_paired_by_path_and_classes_by_name() -> None:
    first = scores([True, True, False, False])
    other = scores([True, False, False], videos=["v3", "v1", "w"], classes=["sit", "jump"], labels=np.array([0, 0, 1]))
    result = compare(Runs("a", [first], {}), Runs("b", [other], {}))
    assert (result.videos, result.left_out) == (2, 3)
    assert (result.first.value, result.second.value) == (50.0, 100.0), "v1 right and v3 wrong, then both right"
    swapped = scores([True, True], videos=["v0", "v1"], classes=["sit", "jump"])
    with pytest.raises(UserError, match="the video v0 is of class jump in one run, sit in another"):
        compare(runs([True, True]), Runs("b", [swapped], {}))
    with pytest.raises(UserError, match="no video in common: one has v0, another w"):
        compare(runs([True]), Runs("b", [scores([True], videos=["w"])], {}))
    with pytest.raises(UserError, match=r"a video is twice in the scores of val\.txt"):
        compare(runs([True]), Runs("b", [scores([True, True], videos=["v0", "v0"])], {}))


def test_several_runs_a_side() -> None:
    result = compare(runs(FIRST, SECOND), runs(SECOND, SECOND))
    assert (result.first.value, result.second.value, result.difference.value) == pytest.approx((60, 64, 4))
    assert (result.mcnemar, result.changed) == (None, [])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, hits, kind in (("A", FIRST, "sifa"), ("B", SECOND, "shift")):
        save_scores(tmp_path / name / "scores.npz", scores(hits))
        (tmp_path / name / "config.yml").write_text(f"output_dir: {name}\nseed: 0\nSIFA: {{temporal: {kind}}}\n")
    save_scores(tmp_path / "seeds/seed_0/scores.npz", scores(FIRST))
    save_scores(tmp_path / "seeds/seed_1/scores.npz", scores(SECOND, clips=1))
    assert len(read_runs(tmp_path / "seeds").scores) == 2
    files = [f"--out={tmp_path}/out/page.html", f"--json={tmp_path}/all.json", f"--csv={tmp_path}/classes.csv"]
    assert command.main([str(tmp_path / "A"), str(tmp_path / "B/scores.npz"), *files]) == 0
    out = capsys.readouterr().out
    assert "SIFA.temporal   sifa   shift" in out
    assert "output_dir" not in out
    page = (tmp_path / "out/page.html").read_text()
    assert "<td>difference</td><td></td><td>+8.00</td>" in page
    assert "<td>v80</td>" in page
    figures = json.loads((tmp_path / "all.json").read_text())
    assert figures["mcnemar"]["only_second"] == 14
    assert (tmp_path / "classes.csv").read_text().splitlines()[0] == 'class,videos,"first, %","second, %",difference'
    assert command.main([str(tmp_path / "A"), str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist; train_val_3d.py --test writes it" in capsys.readouterr().err
