"""benchmarks/real_motion.py on drawn clips: splits, what a blind network can know, resuming, tables, and the flow."""

import csv
import itertools
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from benchmarks.motion_cells import EVERYONE, Budget, build, run_cell, start_table, steps_of
from benchmarks.motion_data import Sample, Video, inner_split, read_videos, some_of, splits_of, test_clip, train_batch
from benchmarks.motion_flow import METHODS, motion_table, offsets_and_flow, optical_flow, some_test_clips
from benchmarks.motion_tables import answers, difference_of_networks, page, verdict
from benchmarks.real_motion import main
from common.errors import UserError
from engine.statistics import Interval
from models.sifa import InterFrameAttention

BUDGET = Budget((1, 2, 2, 2), width=2, frames=4, crop=32, epochs=1)


def drawn(frames: int, step: tuple[int, int], seed: int) -> np.ndarray:
    """uint8 (T, 36, 48, 3): a smooth texture that moves by `step` (rows, columns) from frame to frame."""
    random = np.random.default_rng(seed)
    texture = cv2.GaussianBlur(random.integers(0, 256, (96, 96, 1), np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    moved = [np.roll(texture, (step[0] * t, step[1] * t), (0, 1))[24:60, 24:72] for t in range(frames)]
    return np.repeat(np.stack(moved)[..., None], 3, axis=-1)


def some_videos() -> list[Video]:
    return [
        Video(f"{label}{part}_{group}.avi", label, f"speaker {group}", part, drawn(9, (0, 2), 10 * group + i))
        for group in range(5)
        for i, label in enumerate("AB")
        for part in "12"
    ]


def test_no_group_and_no_part_is_on_both_sides() -> None:
    videos = some_videos()
    folds = splits_of("direction", videos)
    tested = [(sample.video, sample.reversed) for split in folds for sample in split.test]
    assert sorted(tested) == [(i, side) for i in range(len(videos)) for side in (False, True)]  # each once
    for split in folds:
        speakers = [{videos[sample.video].group for sample in side} for side in (split.train, split.test)]
        assert not speakers[0] & speakers[1]
        inner = inner_split(split, videos)
        assert {videos[sample.video].group for sample in inner.test} < speakers[0]
        assert len(inner.train) + len(inner.test) == len(split.train)
    for split in splits_of("labels", videos):
        parts = [{videos[sample.video].part for sample in side} for side in (split.train, split.test)]
        assert len(parts[0] | parts[1]) == 2
        assert {sample.label for sample in split.test} == {0, 1}
    with pytest.raises(UserError, match="the task direction needs 5 groups at least, got 2"):
        splits_of("direction", [video for video in videos if video.group < "speaker 2"])


def test_backwards_is_the_same_clip_in_the_other_order() -> None:
    """Otherwise the choice of frames would tell the direction, and a blind network could learn it."""
    videos = some_videos()
    forward, backward = splits_of("direction", videos)[0].test[:2]
    clips = [test_clip(sample, videos, frames=4, crop=32) for sample in (forward, backward)]
    assert (forward.video, forward.reversed, backward.reversed) == (backward.video, False, True)
    assert np.array_equal(clips[0][::-1], clips[1])
    batch, labels = train_batch(
        [forward, backward], videos, frames=4, crop=32, generator=torch.Generator().manual_seed(0)
    )
    assert batch.shape == (2, 3, 4, 32, 32)
    assert labels.tolist() == [0, 1]


def test_a_step_of_the_task_direction_has_its_clips_in_both_directions() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = [Sample(i, False, 0) for i in range(3)]
    batch, labels = train_batch(samples, some_videos(), frames=4, crop=32, both_directions=True, generator=generator)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(batch[:3].flip(2), batch[3:])
    assert not torch.equal(batch[:3], batch[3:])
    split = splits_of("direction", some_videos())[0]
    for size in (8, 1):  # as many steps as without pairs; a batch of one clip has two
        seen = itertools.count()
        budget = Budget((1, 2, 1, 1), width=2, frames=4, crop=32, epochs=2, batch=size, stages=("res3",))
        run_cell(
            "direction",
            split,
            some_videos(),
            budget,
            contestant="temporal shift",
            stem_frames=1,
            seed=0,
            rate=0.01,
            progress=partial(next, seen),
        )
        assert next(seen) == steps_of(split, budget) == 2 * -(-len(split.train) // max(2, size))


def test_a_time_crop_trains_on_parts_of_the_videos() -> None:
    frames = np.repeat(np.arange(40, dtype=np.uint8), 36 * 36 * 3).reshape(40, 36, 36, 3)  # each brighter by one
    video = Video("a", "A", "x", "1", frames)

    def spans(time_crop: tuple[float, float] | None) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        clips, _ = train_batch(
            [Sample(0, False, 0)] * 20, [video], frames=4, crop=32, time_crop=time_crop, generator=generator
        )
        return (clips[:, :, -1] - clips[:, :, 0]).mean(dim=(1, 2, 3))

    assert spans((0.3, 0.3)).max() < spans(None).min()


def test_a_blind_network_answers_half_of_the_directions() -> None:
    videos = some_videos()
    split = splits_of("direction", videos)[0]
    entry = run_cell("direction", split, videos, BUDGET, contestant="2D network", stem_frames=1, seed=0, rate=0.01)
    assert entry["top-1"] == 50
    assert entry["right"].count("1") == len(split.test) / 2
    assert entry["offsets"] == {}


def test_the_mark_tells_the_last_frame_and_nothing_else() -> None:
    network = build("2D network, last frame marked", BUDGET, stem_frames=1, classes=2).eval()
    marks = [module for name, module in network.named_modules() if name.endswith(".temporal")]
    assert len(marks) == len(BUDGET.stages)
    clip = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(marks[0](clip)[:, :-1], clip[:, :-1])
    assert not marks[0](clip)[:, -1].any()


@pytest.mark.parametrize("contestant", EVERYONE)
def test_contestants_differ_in_the_temporal_module_alone(contestant: str) -> None:
    network, reference = (build(name, BUDGET, stem_frames=1, classes=2) for name in (contestant, "2D network"))
    weights = {name for name in network.state_dict() if ".temporal." not in name}
    assert weights == set(reference.state_dict())
    assert network(torch.zeros(1, 3, 4, 32, 32))[0].shape == (1, 2)


def test_flow_has_the_direction_of_offsets() -> None:
    """What is in frame t at p is in frame t+1 at p + flow."""
    for method in METHODS:
        flow = optical_flow(drawn(3, (1, 2), 3), method)
        assert flow.shape == (2, 2, 36, 48)
        assert np.median(flow, axis=(0, 2, 3)) == pytest.approx([1, 2], abs=0.3)


def test_motion_is_told_in_positions_of_the_maps() -> None:
    """Four pixels a frame: one position of res2, half of one of res3."""
    videos = [Video("a.avi", "A", "a", "1", drawn(4, (0, 4), 5))]
    table = motion_table(videos, frames=4, crop=32, stems=[1])
    medians = [float(line.split("|")[4]) for line in table.splitlines() if line.startswith("| 1 | res")]
    assert medians[:2] == pytest.approx([1, 0.5], abs=0.15)


def test_strength_before_training_is_a_tenth_with_a_scale_of_a_tenth() -> None:
    rows = start_table(some_videos()[:4], BUDGET, seeds=1).splitlines()
    plain, scaled = (
        [float(cell.split()[0]) for cell in next(r for r in rows if r.startswith(f"| {name} |")).split("|")[2:5]]
        for name in ("SIFA_R", "SIFA_R, branch_scale 0.1")
    )
    assert scaled == pytest.approx([value / 10 for value in plain], abs=0.01)
    assert all(value > 0 for value in plain)


def test_offsets_that_are_the_flow_correlate_with_it() -> None:
    """Two videos that move to opposite sides; a hook makes each module's offsets what moves, in positions."""
    videos = [Video(f"{i}.avi", "A", f"{i}", "1", drawn(4, (0, step), i)) for i, step in enumerate((3, -3))]
    clips = some_test_clips([Sample(i, False, 0) for i in range(2)], videos, frames=4, crop=32)
    network = build("SIFA", BUDGET, stem_frames=1, classes=2).eval()
    module = dict(network.sifa_modules("res3"))["block 2"]
    assert isinstance(module, InterFrameAttention)
    assert module.offset is not None
    steps = iter([3.0, 3.0, -3.0, -3.0])  # the network calls the convolution, then the study does, for each video

    def moved(_module: torch.nn.Module, _inputs: object, result: torch.Tensor) -> torch.Tensor:
        offset = torch.zeros_like(result)
        offset[:, 1::2] = next(steps) / 8  # res3 has an eighth of the resolution; odd channels are horizontal
        return offset

    module.offset.register_forward_hook(moved)
    found = offsets_and_flow(network, clips)["res3 block 2"]
    assert found["map"] == [4, 4]
    assert found["offset std"] == pytest.approx(3 / 8 / 2**0.5, rel=0.01)
    assert found["r Farneback"] > 0.8
    assert found["r DIS"] > 0.8
    assert 0 < found["outside"] < 0.5
    assert found["by place"] == pytest.approx(0)  # they are the same at all places, and opposite in the two clips
    assert found["r spread"] is None  # and of all taps


def write_videos(folder: Path) -> None:
    """Ten short videos of five groups, and their labels file; a third repetition that does not exist."""
    rows = [("path", "label", "speaker", "repetition")]
    for video in [video for video in some_videos() if (video.label == "A") == (video.part == "1")]:
        writer = cv2.VideoWriter(str(folder / video.path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (48, 36))
        for frame in video.frames:
            writer.write(frame)
        writer.release()
        rows.append((video.path, video.label, video.group, video.part))
    rows.append(("kept/aside.avi", "A", "speaker 0", "3"))
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


@pytest.mark.parametrize(("noise", "share"), [(0.0, 1.0), (1.0, 0.5)])
def test_how_much_of_the_offsets_depends_on_the_place_alone(noise: float, share: float) -> None:
    """A hook makes them a value of each place, and noise of as much variance."""
    clips = [drawn(4, (0, step), i)[:, :32, :32] for i, step in enumerate((3, -3))]
    network = build("SIFA", BUDGET, stem_frames=1, classes=2).eval()
    module = dict(network.sifa_modules("res3"))["block 2"]
    assert isinstance(module, InterFrameAttention)
    assert module.offset is not None
    of_place = torch.arange(16.0).view(4, 4) / 8
    scale = noise * of_place.std(correction=0)
    torch.nn.init.normal_(module.offset.weight)
    module.offset.register_forward_hook(lambda _, inputs, result: of_place + scale * torch.randn(result.shape))
    found = offsets_and_flow(network, clips)["res3 block 2"]
    assert found["by place"] == pytest.approx(share, abs=0.15 * noise + 1e-6)
    assert 0 < found["by place, random weights"] < 0.9  # of features that the hook does not touch
    assert (found["r spread within places"] is None) == (not noise)
    assert found["outside, regular"] == pytest.approx(1 - (5 / 6) ** 2)  # 4 x 4: a quarter of two taps in three


def test_some_of_a_sorted_list_are_not_every_nth() -> None:
    drawn = some_of(range(100), 10)
    assert drawn == sorted(set(drawn)) == some_of(range(100), 10)
    assert len({number % 2 for number in drawn}) == 2
    assert some_of([3, 1, 2], 40) == [3, 1, 2]


def test_a_study_stops_continues_and_writes_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_videos(tmp_path)
    out = tmp_path / "out"
    command = [str(tmp_path), "--out", str(out), "--tasks", "labels", "--stems", "1", "--seeds", "1", "--depths"]
    command += ["1", "2", "2", "2", "--width", "2", "--frames", "4", "--crop", "32", "--epochs", "1"]
    contestants = ["--contestants", "temporal shift", "SIFA"]
    assert main([*command, *contestants, "--rates", "0.01", "--stop-after", "0"]) == 0
    assert json.loads((out / "results.json").read_text())["cells"] == []
    assert main([*command, *contestants, "--rates", "0.01"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert [(cell["split"], cell["contestant"]) for cell in results["cells"]] == [
        (f"tested on {part}", name) for part in (1, 2) for name in ("temporal shift", "SIFA")
    ]
    with_arrows = [number for number, cell in enumerate(results["cells"]) if "arrows" in str(cell["offsets"])]
    assert with_arrows == [3]  # of the newest network with offsets, which the picture shows
    before = (out / "results.json").read_bytes()
    assert main([*command, "--contestants", "SIFA", "--rates", "0.01", "--seeds", "0"]) == 0  # nothing is left to do
    assert (out / "results.json").read_bytes() == before
    table = (out / "real_motion.md").read_text()
    assert "| temporal shift | 10 | 1, 1 |" in table
    assert "| labels | 1 | SIFA | res3 block 2 | 4 x 4 |" in table
    assert (out / "real_motion.png").stat().st_size > 1000
    capsys.readouterr()
    assert main([*command, *contestants, "--rates", "0.02"]) == 2
    assert "was made with {'rates': [0.01]}, now it is {'rates': [0.02]}" in capsys.readouterr().err
    results["videos"]["labels, tested on 1"]["samples"][0] = "another"
    (out / "results.json").write_text(json.dumps(results))
    assert main([*command, *contestants, "--rates", "0.01"]) == 2
    assert "kept for labels, tested on 1 are of other videos" in capsys.readouterr().err


def test_what_the_study_needs_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "a folder of short videos on which motion decides" in error
    assert "columns path, label, speaker, repetition" in error
    (tmp_path / "labels.csv").write_text("path,label\na.avi,A\n")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "must have the columns path, label, speaker, repetition" in capsys.readouterr().err


def test_videos_of_other_parts_are_not_opened(tmp_path: Path) -> None:
    write_videos(tmp_path)
    read = read_videos(
        tmp_path, tmp_path / "labels.csv", group="speaker", part="repetition", parts=["1", "2"], short_side=36
    )
    assert len(read) == 10
    assert {video.part for video in read} == {"1", "2"}
    assert read[0].frames.shape == (9, 36, 48, 3)


def results_of(cells: list[dict[str, object]]) -> dict[str, object]:
    """Results of networks that were tested on the same four videos."""
    described = {"training videos": 4, "samples": ["a", "b", "c", "d"], "groups": ["x", "x", "y", "y"]}
    common = {"task": "labels", "stem": 1, "split": "tested on 1", "minutes": 0.0, "offsets": {}, "last losses": 0.5}
    settings = {"depths": [1], "width": 2, "frames": 4, "crop": 32, "epochs": 1, "batch": 2, "rates": [1], "torch": ""}
    return {
        "settings": {**settings, "stages": ["res3"]},
        "videos": {"labels, tested on 1": described},
        "chosen": {},
        "cells": [{**common, "top-1": 25.0 * str(cell["right"]).count("1"), **cell} for cell in cells],
    }


def test_the_table_compares_on_what_both_have_run() -> None:
    """SIFA has both seeds, the shift one: the difference is of that one."""
    results = results_of(
        [
            {"contestant": "SIFA", "seed": 0, "right": "1100"},
            {"contestant": "SIFA", "seed": 1, "right": "0000"},
            {"contestant": "temporal shift", "seed": 0, "right": "1110"},
        ]
    )
    gathered = answers(results, "labels", 1)
    assert gathered is not None
    assert np.nanmean(gathered.of["SIFA"]) == 0.25
    row = next(line for line in page(results).splitlines() if line.startswith("| temporal shift"))
    assert row.startswith("| temporal shift | 4 | 1 | 75.0 | 0.50 | 75.0 |")
    assert "| +25.0 |" in row
    assert row.endswith("| 1, 0 | 1.000 |")


def test_the_papers_order_is_confirmed_denied_or_open() -> None:
    """On four videos that all answer alike: only a difference on each of them counts."""
    rights = {"SIFA": "1111", "SIFA_R": "0000", "temporal shift": "0111", "temporal difference": "0000"}
    cells = [{"contestant": name, "seed": seed, "right": right} for name, right in rights.items() for seed in range(5)]
    cells.append({"contestant": "2D network", "seed": 0, "right": "0000"})
    results = results_of(cells)
    rows = [line.split(" | ") for line in page(results).splitlines() if line.startswith("| ") and " over " in line]
    assert {row[0]: (row[1], row[2], row[5]) for row in rows} == {
        "| SIFA over SIFA_R": ("+0.8", "+100.0", "confirmed |"),
        "| SIFA over temporal shift": ("+0.7", "+25.0", "open |"),
        "| temporal difference over SIFA": ("+1.2", "-100.0", "denied |"),
        "| SIFA over 2D network": ("+3.4", "+100.0", "open (1 network) |"),
        "| SIFA_R over 2D network": ("+2.6", "+0.0", "open (1 network) |"),
        "| temporal shift over 2D network": ("+2.7", "+75.0", "open (1 network) |"),
        "| temporal difference over 2D network": ("+4.6", "+0.0", "open (1 network) |"),
    }
    assert [row[4] for row in rows[:2]] == ["100.0 to 100.0", "25.0 to 25.0"]
    assert rows[-1][4] == "-"


def test_the_papers_order_is_asked_of_slow_offsets_too() -> None:
    rights = {"SIFA": "0000", "SIFA, offsets learn at a tenth": "1111", "SIFA_R": "0011"}
    results = results_of([{"contestant": name, "seed": s, "right": r} for name, r in rights.items() for s in range(5)])
    rows = [line for line in page(results).splitlines() if " over " in line and line.startswith("| ")]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| SIFA over SIFA_R", "+0.8", "-50.0"],
        ["| SIFA, offsets learn at a tenth over SIFA_R", "+0.8", "+50.0"],
    ]


def test_a_change_is_measured_against_the_form_without_it() -> None:
    """Not against another contestant, and not against itself."""
    rights = {"SIFA_R, cosine, projection": "0111", "SIFA_R": "0011", "SIFA_R, projection": "0000", "SIFA": "1111"}
    results = results_of([{"contestant": name, "seed": s, "right": r} for name, r in rights.items() for s in range(5)])
    rows = page(results).partition("What a change gives")[2].splitlines()
    assert [row.split(" | ")[:3] for row in rows if "SIFA_R" in row] == [
        ["| SIFA_R, projection", "SIFA_R", "-50.0"],
        ["| SIFA_R, cosine, projection", "SIFA_R", "+25.0"],
        ["| SIFA_R, cosine, projection", "SIFA_R, projection", "+75.0"],
    ]


def test_answers_of_one_group_get_no_mcnemar_test() -> None:
    """A clip and its reverse, of one speaker, are not independent."""
    cells = [{"contestant": name, "seed": 0, "right": r} for name, r in (("SIFA", "1100"), ("temporal shift", "1110"))]
    results = results_of([{**cell, "task": "direction", "split": "fold 1"} for cell in cells])
    results["videos"] = {
        "direction, fold 1": {"samples": ["a", "a backwards", "b", "b backwards"], "groups": [*"xxyy"]}
    }
    text = page(results)
    assert next(line for line in text.splitlines() if line.startswith("| temporal shift |")).endswith("| 1, 0 | - |")
    assert "McNemar's test (" not in text


def test_trainings_that_differ_make_the_interval_over_networks_wide() -> None:
    rights = {"SIFA": ["1111", "1111", "1111", "1111", "0011"], "SIFA_C": ["0000", "0000", "0000", "0000", "1111"]}
    cells = [{"contestant": name, "seed": s, "right": r} for name, of in rights.items() for s, r in enumerate(of)]
    gathered = answers(results_of(cells), "labels", 1)
    assert gathered is not None
    interval = difference_of_networks(gathered, "SIFA", "SIFA_C")
    assert interval.value == pytest.approx(70)  # of 100, 100, 100, 100, -50
    half = 2.776 * 67.08 / 5**0.5  # Student's quantile for five, and their standard deviation
    assert (interval.low, interval.high) == pytest.approx((70 - half, 70 + half), abs=0.1)
    assert verdict([Interval(70, 20, 100), interval], networks=5) == "open"


def test_processes_give_the_same_networks_as_this_one(tmp_path: Path) -> None:
    write_videos(tmp_path)
    command = [str(tmp_path), "--tasks", "labels", "--stems", "1", "--seeds", "1", "--depths", "1", "2", "1", "1"]
    command += ["--stages", "res3", "--width", "2", "--frames", "4", "--crop", "32", "--epochs", "1", "--batch", "4"]
    command += ["--contestants", "SIFA", "--rates", "0.01", "0.02", "--choose-with", "2D network"]
    kept = []
    for workers in "12":
        out = tmp_path / workers
        assert main([*command, "--out", str(out), "--workers", workers]) == 0
        results = json.loads((out / "results.json").read_text())
        assert set(results["chosen"]) == {f"labels, tested on {part}, stem 1, 2D network" for part in (1, 2)}
        cells = sorted(results["cells"], key=lambda cell: cell["split"])
        kept.append([(cell["split"], cell["rate"], cell["right"], cell["last losses"]) for cell in cells])
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2


def test_a_stage_without_a_second_bottleneck_is_refused() -> None:
    with pytest.raises(UserError, match="res2 has a temporal module in its second bottleneck and has 1"):
        Budget((1, 2, 2, 2), width=2, frames=4, crop=32, epochs=1, stages=("res2",))
