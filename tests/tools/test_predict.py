"""tools.predict as its users run it: tables, JSON, windows, a camera, bad videos and mistakes."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import sifa
from sifa.predictor import Predictor, count_frames
from tests.tiny import CLASSES, RATE, moving_square, write_checkpoint, write_video
from tools import predict

FRAMES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    write_checkpoint(folder / "last.pth")
    (folder / "videos/more").mkdir(parents=True)
    write_video(folder / "videos/a.avi", moving_square(FRAMES))
    write_video(folder / "videos/more/b.avi", moving_square(12, seed=1))
    (folder / "videos/notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return sifa.load(folder / "last.pth", num_clips=1, num_crops=1)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """run(arguments): exit code, stdout and stderr."""

    def run(*arguments: str, checkpoint: str = "last.pth") -> tuple[int, str, str]:
        code = predict.main([*arguments, f"--checkpoint={folder / checkpoint}"])
        return code, *capsys.readouterr()

    return run


def of_json(best: list[dict[str, Any]]) -> dict[str, float]:
    return {one["class"]: one["probability"] for one in best}


def test_a_table_of_five(run: Run, folder: Path) -> None:
    code, out, err = run(str(folder / "videos/a.avi"))
    trained_on, head, *rows = out.strip().splitlines()
    assert (code, err) == (0, "")
    assert trained_on == f"trained on kinetics400: {len(CLASSES)} classes"
    assert head == f"{folder}/videos/a.avi  (30 frames, 6 views)"
    expected = sifa.load(folder / "last.pth").predict(folder / "videos/a.avi")
    order = expected.argsort(descending=True)[:5].tolist()
    assert [row.split()[2] for row in rows] == [CLASSES[label] for label in order]
    shown = [row.split()[0] for row in rows]  # rounded to two digits
    assert all(re.fullmatch(r"\d+\.\d\d", percent) for percent in shown)
    assert [float(percent) for percent in shown] == pytest.approx((100 * expected[order]).tolist(), abs=0.0051)


def test_json_of_folders_and_patterns(run: Run, folder: Path) -> None:
    code, out, err = run(f"{folder}/videos", f"{folder}/**/b.av?", "--json", "--clips=1", "--crops=1", "--top=2")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [Path(line["video"]).name for line in lines] == ["a.avi", "b.avi", "b.avi"]
    assert [(line["frames"], line["views"], len(line["top"])) for line in lines] == [(30, 1, 2), (12, 1, 2), (12, 1, 2)]
    expected = sifa.load(folder / "last.pth", num_clips=1, num_crops=1).predict(folder / "videos/a.avi")
    for one in lines[0]["top"]:
        assert one["class"] == CLASSES[one["label"]]
        assert one["probability"] == pytest.approx(float(expected[one["label"]]), abs=1e-6)
    assert err.count(f"warning: {folder}/videos/more/b.avi has only 12 of the 15 frames of a clip") == 2


def test_csv_has_a_row_for_each_class_and_video(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "=b.avi").write_bytes(b"no video at all")
    arguments = [str(folder / "videos/a.avi"), str(tmp_path / "=b.avi"), "--csv", "--top=2", "--clips=1", "--crops=1"]
    code, out, _ = run(*arguments, "--batch=1", "--workers=1", "--threads=1")
    rows = list(csv.DictReader(out.splitlines()))
    assert code == 1
    assert [row["video"] for row in rows] == [str(folder / "videos/a.avi")] * 2 + [str(tmp_path / "=b.avi")]
    assert [CLASSES.index(row["class"]) for row in rows[:2]] == [int(row["label"]) for row in rows[:2]]
    assert float(rows[0]["probability"]) >= float(rows[1]["probability"]) > 0
    assert rows[2]["error"].startswith("no frame of the video")
    code, out, _ = run(str(folder / "videos/a.avi"), "--csv", "--top=1", "--window=2", "--stride=1", "--clips=1")
    assert [(row["start"], row["end"]) for row in csv.DictReader(out.splitlines())] == [("0.0", "2.0"), ("1.0", "3.0")]


def test_a_bad_video_does_not_stop_the_others(run: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    still = write_video(tmp_path / "still.avi", moving_square(1))
    bad = [str(tmp_path / "broken.mp4"), str(still)]
    for window in ([], ["--window=1"]):
        code, out, err = run(*bad, str(folder / "videos/a.avi"), "--json", *window)
        broken, single, good = [json.loads(line) for line in out.splitlines()]
        assert code == 1
        assert broken["error"] == f"no frame of the video {bad[0]} can be decoded"
        assert bad[1] in single["error"]
        assert "motion takes two" in single["error"]
        assert ("windows" if window else "top") in good
        assert [line for line in err.splitlines() if line.startswith("error: ")] == [
            f"error: {one['error']}" for one in (broken, single)
        ]


def test_an_empty_folder_does_not_stop_the_others_either(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run(str(tmp_path), str(folder / "videos/a.avi"), "--json")
    empty, good = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert empty["error"].startswith(f"there is no video in the folder {tmp_path} (extensions: ")
    assert err == f"error: {empty['error']}\n"
    assert "top" in good


def test_a_stream_that_breaks_off_is_told_from_a_short_video(run: Run, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.avi", moving_square(40)).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 4])
    frames = count_frames(tmp_path / "cut.avi")
    assert 2 <= frames < 15
    for window in ([], ["--window=2"]):
        code, _, err = run(str(tmp_path / "cut.avi"), *window)
        assert code == 0
        assert f"has only {frames} of the 15 frames of a clip, though the file announces 40: the last is" in err


MISTAKES = {
    "no such video": (["nowhere.mp4"], "nowhere.mp4: there is no such file or folder, and as a pattern it fits none"),
    "an empty name": ([""], "an empty name: there is no such file or folder"),
    "nothing in the folder": (["{tmp}"], "there is no video in the folder"),
    "device": (["{video}", "--device=gpu"], "device gpu cannot be used"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, run: Run, folder: Path, tmp_path: Path) -> None:
    arguments, message = MISTAKES[name]
    code, out, err = run(*(text.format(tmp=tmp_path, video=folder / "videos/a.avi") for text in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err


def test_a_checkpoint_that_is_none(run: Run, folder: Path) -> None:
    for checkpoint, message in (("nowhere.pth", "does not exist"), ("videos/notes.txt", "no checkpoint at all")):
        code, _, err = run(str(folder / "videos/a.avi"), checkpoint=checkpoint)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give videos, or --camera N"),
        (["a.avi", "--camera=0"], "give videos or --camera N, not both"),
        (["a.avi", "--stride=1"], "--stride goes with --window or --camera"),
        (["a.avi", "--window=0"], "--window must be above 0 and at most 86400 seconds, got 0"),
        (["a.avi", "--window=nan"], "--window must be above 0 and at most 86400 seconds, got nan"),
        (["a.avi", "--window=inf"], "--window must be above 0 and at most 86400 seconds, got inf"),
        (["a.avi", "--window=1", "--stride=nan"], "--stride must be above 0 and at most 86400 seconds, got nan"),
        (["a.avi", "--top=-1"], "--top must be at least 1, got -1"),
        (["a.avi", "--workers=0"], "--workers must be at least 1, got 0"),
        (["a.avi", "--json", "--csv"], "argument --csv: not allowed with argument --json"),
    ],
)
def test_arguments_that_cannot_be(
    arguments: list[str], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"python -m tools.predict: error: {message}\n")


# ---- Windows --------------------------------------------------------------------------------------------------------


def test_a_window_scores_like_a_video_of_its_own(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, _ = run(str(folder / "videos/a.avi"), "--window=2", "--stride=0.7", "--json", "--top=6")
    line = json.loads(out)
    assert code == 0
    # 30 frames at 10 a second, the last window moved so that it ends with the video.
    assert [(one["start"], one["end"]) for one in line["windows"]] == [(0, 2), (0.7, 2.7), (1, 3)]
    whole = sifa.load(folder / "last.pth")
    for number, one in enumerate(line["windows"]):
        start = round(one["start"] * RATE)
        piece = write_video(tmp_path / f"{number}.avi", moving_square(FRAMES)[start : start + 20])
        expected = dict(zip(CLASSES, whole.predict(piece).tolist(), strict=True))
        assert of_json(one["top"]) == pytest.approx(expected, abs=1e-5)


# ---- Camera ---------------------------------------------------------------------------------------------------------


class Camera:
    """Shows a moving square for some frames, then `end` happens."""

    def __init__(self, frames: int, end: type[BaseException] | None = None) -> None:
        self.frames, self.end, self.released = list(moving_square(frames)), end, False

    def isOpened(self) -> bool:
        return bool(self.frames)

    def get(self, what: int) -> float:
        return RATE if what == cv2.CAP_PROP_FPS else 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self.frames:
            return True, cv2.cvtColor(self.frames.pop(0), cv2.COLOR_RGB2BGR)
        if self.end:
            raise self.end
        return False, None

    def release(self) -> None:
        self.released = True


def test_a_camera_is_watched_until_the_user_ends_it(
    run: Run, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = Camera(40, end=KeyboardInterrupt)
    monkeypatch.setattr(cv2, "VideoCapture", {3: camera}.__getitem__)
    code, out, err = run("--camera=3", "--stride=1", "--clips=1", "--crops=1", "--json", "--top=6")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err, camera.released) == (0, "", True)
    assert len(lines) == 3, "after 15 frames, a clip, and then every second"
    expected = [window.probabilities for window in predictor.predict_windows(moving_square(35), window=15, stride=10)]
    for line, probabilities in zip(lines, expected, strict=True):
        assert of_json(line["top"]) == pytest.approx(dict(zip(CLASSES, probabilities.tolist(), strict=True)), abs=1e-5)


def test_a_camera_that_stops(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera(16))
    code, out, err = run("--camera=0", "--window=1.5", "--clips=1", "--crops=1")
    assert (code, err) == (2, "error: camera 0 gives no more pictures\n")
    trained_on, *predictions = out.splitlines()
    assert trained_on.startswith("trained on ")
    assert all(line.split()[-1] in CLASSES for line in predictions)


def test_no_camera(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera(0))
    assert run("--camera=0") == (2, "", "error: there is no camera 0, or it is in use\n")
