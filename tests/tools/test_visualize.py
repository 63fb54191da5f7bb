"""tools.visualize as its users run it: picture, film, page, and mistakes in one line."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.sifa.test_viewer import FRAMES, SMALL
from tests.tiny import RATE, moving_square, write_checkpoint, write_video
from tools import visualize


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("visualize")
    write_checkpoint(folder / "last.pth", SMALL)
    write_video(folder / "v.avi", moving_square(FRAMES))
    return folder


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, video: str = "v.avi", checkpoint: str = "last.pth") -> tuple[int, str, str]:
        code = visualize.main([str(folder / video), f"--checkpoint={folder / checkpoint}", *arguments])
        return code, *capsys.readouterr()

    return run


def test_a_picture(run: Run, tmp_path: Path) -> None:
    pictures = []
    for number, query in enumerate(([], ["--query=40,30"], ["--query=60,10", "--frame=20"])):
        out = tmp_path / f"{number}.png"
        assert run(f"--out={out}", "--stage=res3", *query) == (0, f"{out}\n", "")
        pictures.append(np.asarray(cv2.imread(str(out))))
    assert {picture.shape for picture in pictures} == {(1030, 1240, 3)}
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[1] != pictures[2]).any()


def test_hardly_any_motion_is_said(run: Run, folder: Path, tmp_path: Path) -> None:
    write_video(folder / "still.avi", [moving_square(1)[0]] * 34)
    code, _, err = run(f"--out={tmp_path}/still.html", "--html", "--stage=res5", video="still.avi")
    assert (code, err) == (0, "hardly any motion between the two frames: points and offsets follow little\n")


def test_its_name_is_the_videos(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run()[1] == "v.png\n"
    first = (tmp_path / "v.png").read_bytes()
    assert run("--stage=res4")[1] == "v-2.png\n"
    assert (tmp_path / "v.png").read_bytes() == first != (tmp_path / "v-2.png").read_bytes()
    assert run("--html")[1] == "v.html\n"
    assert (tmp_path / "v.png").read_bytes()[1:4] == b"PNG"
    assert "<canvas" in (tmp_path / "v.html").read_text()


def test_a_film_of_all_clips(run: Run, folder: Path, tmp_path: Path) -> None:
    write_video(folder / "short.avi", moving_square(35))
    out = tmp_path / "film.mp4"
    assert run(f"--out={out}", "--stage=res5", video="short.avi")[0] == 0
    capture = cv2.VideoCapture(str(out))
    assert (capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)) == (RATE, 3)
    success, frame = capture.read()
    capture.release()
    assert success
    assert frame.shape == (1030, 1240, 3)
    assert frame.std() > 10


MISTAKES = {
    "query outside the crop": (["--query=5,30"], "x in 10..69 and y in 0..59, got 5,30"),
    "frame after the end": (["--frame=40"], "--frame must be in 0..39, got 40"),
    "stage without SIFA": (["--stage=res2"], "--stage res2 of this network has no SIFA; it is in res3, res4, res5"),
    "class": (["--class=jump"], "--class must be one of left, right, up, down, away, back, or a number below 6"),
    "folder": (["--out={tmp}/folder.png"], "/folder.png: Is a directory"),
    "film": (["--out={tmp}/folder.mp4"], "/folder.mp4: Is a directory"),
    "below a file": (["--out={tmp}/file/a.mp4"], "/file: File exists"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, run: Run, tmp_path: Path) -> None:
    arguments, message = MISTAKES[name]
    for name in ("folder.png", "folder.mp4"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    # The last --out counts.
    code, out, err = run(f"--out={tmp_path}/a.png", *(text.format(tmp=tmp_path) for text in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "a.png").exists()


def test_folders_are_made(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "pictures/of/v.png"
    assert run(f"--out={out}") == (0, f"{out}\n", "")
    assert out.is_file()


def test_a_video_or_checkpoint_that_is_none(run: Run, folder: Path) -> None:
    assert "nowhere.avi is missing" in run(video="nowhere.avi")[2]
    assert "nowhere.pth does not exist" in run(checkpoint="nowhere.pth")[2]


def test_a_network_without_sifa(run: Run, folder: Path) -> None:
    settings = {**SMALL, "SIFA": {"temporal": "none"}}
    write_checkpoint(folder / "plain.pth", settings)
    code, _, err = run(checkpoint="plain.pth")
    assert (code, err) == (2, f"error: checkpoint {folder}/plain.pth has a network without SIFA\n")


def test_a_network_with_a_single_frame(run: Run, folder: Path) -> None:
    settings = {**SMALL, "dataset": {**SMALL["dataset"], "clip_length": 4}}
    settings["network"] = {**SMALL["network"], "dual_head": False}
    write_checkpoint(folder / "short.pth", settings)
    code, _, err = run("--frame=3", checkpoint="short.pth")
    assert (code, err) == (2, "error: a clip of 4 frames is one frame to the network: SIFA has no next one\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--query=5"], "argument --query: must be two numbers X,Y, got '5'"),
        (["--out=a.gif"], "--out must end in .png or .mp4, got a.gif"),
        (["--html", "--out=a.png"], "--out must end in .html, got a.png"),
        (["--blocks=0"], "--blocks must be at least 1, got 0"),
        (["--gamma=0"], "--gamma must be a number above 0, got 0"),
        (["--gamma=nan"], "--gamma must be a number above 0, got nan"),
        (["--crop_size=0"], "--crop_size must be at least 32, got 0"),
        (["--crop_size=31"], "--crop_size must be at least 32, got 31"),
    ],
)
def test_arguments_that_cannot_be(
    arguments: list[str], message: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"python -m tools.visualize: error: {message}\n")


@pytest.mark.parametrize("name", [".", "/"])
def test_a_folder_is_called_a_folder(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert visualize.main([name, f"--checkpoint={folder / 'last.pth'}"]) == 2
    assert capsys.readouterr().err == f"error: VIDEO must be a file, {name} is a folder\n"
