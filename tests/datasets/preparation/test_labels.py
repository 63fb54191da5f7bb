"""Label files as they are published: which videos and classes they name, and what is said of broken ones."""

import json
import re
from pathlib import Path

import pytest

from common.errors import DataError
from datasets.preparation.labels import sources_from_labels
from datasets.preparation.sources import filter_sources


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def named(labels: Path, video_dir: Path, fold: int = 1) -> list[tuple[str, str]]:
    return [(source.path, source.label) for source in sources_from_labels(labels, video_dir, fold=fold)]


KINETICS = "label,youtube_id,time_start,time_end,split\n"


def test_kinetics_videos_are_found_by_their_usual_names(tmp_path: Path) -> None:
    videos = touch(
        tmp_path / "videos",
        "-a_000012_000022.mp4",
        "tasting_beer/b_000000_000010.mkv",
        "k400/train/c.webm",
        "playing drums/d_000001_000011.mp4",
        "clapping/d_000001_000011.mp4",
        "clapping/d_000001_000011.txt",
    )
    file = tmp_path / "train.csv"
    rows = ["clapping,-a,12,22,train", '"tasting beer",b,0,10,train', "clapping,c,3.0,13.0,val"]
    rows += ["playing drums,d,1,11,train", "clapping,gone,5,15,train", "clapping,-a,12,22,train"]
    file.write_text(KINETICS + "\n".join(rows) + "\n")
    assert named(file, videos) == [
        ("-a_000012_000022.mp4", "clapping"),
        ("tasting_beer/b_000000_000010.mkv", "tasting beer"),
        ("k400/train/c.webm", "clapping"),
        ("playing drums/d_000001_000011.mp4", "playing drums"),
        ("gone_000005_000015.mp4", "clapping"),
    ]
    chosen = filter_sources(sources_from_labels(file, videos), ["split=val"])
    assert [source.path for source in chosen] == ["k400/train/c.webm"]


def test_ucf101_lines_have_a_number_or_none(tmp_path: Path) -> None:
    file = tmp_path / "trainlist01.txt"
    file.write_text("Yo Yo/v_a b.avi 101\r\nBiking/v_c 2.avi\n\n")
    assert named(file, tmp_path) == [("Yo Yo/v_a b.avi", "Yo Yo"), ("Biking/v_c 2.avi", "Biking")]


def test_hmdb51_has_a_file_for_every_class_and_fold(tmp_path: Path) -> None:
    (tmp_path / "brush_hair_test_split1.txt").write_text("a.avi 1 \nb#x.avi 2 \nc.avi 0 \n")
    (tmp_path / "wave_test_split1.txt").write_text("d.avi 2\n")
    (tmp_path / "wave_test_split2.txt").write_text("d.avi 1\n")
    (tmp_path / "README").write_text("no list")
    everything = [("brush_hair/a.avi", "brush_hair"), ("brush_hair/b#x.avi", "brush_hair")]
    everything += [("brush_hair/c.avi", "brush_hair"), ("wave/d.avi", "wave")]
    assert named(tmp_path, tmp_path) == everything
    test = filter_sources(sources_from_labels(tmp_path, tmp_path), ["split=test"])
    assert [source.path for source in test] == ["brush_hair/b#x.avi", "wave/d.avi"]
    assert sources_from_labels(tmp_path, tmp_path, fold=2)[0].columns == {"split": "train", "fold": "2"}


def test_something_something_v1_and_v2(tmp_path: Path) -> None:
    first = tmp_path / "v1.csv"
    first.write_text("100218;Something falling like a feather or paper\n7;Putting [a], then b\n")
    assert named(first, tmp_path) == [
        ("100218", "Something falling like a feather or paper"),
        ("7", "Putting [a], then b"),
    ]
    second = tmp_path / "v2.json"
    second.write_text(json.dumps([{"id": "78687", "template": "Holding [something] next to [something]"}]))
    assert named(second, tmp_path) == [("78687.webm", "Holding something next to something")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_of_spreadsheets(tmp_path: Path, separator: str, end: str) -> None:
    file = tmp_path / "labels.csv"
    rows = ["path,label,note", '"a, b; c.mp4","say ""a|b""\t!",1', "č.mp4,sit,", ""]
    text = end.join(rows).replace(",", "\0").replace('"a\0', '"a,').replace("\0", separator)
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert named(file, tmp_path) == [("a, b; c.mp4", 'say "a|b"\t!'), ("č.mp4", "sit")]
    file.write_text(KINETICS.replace(",", separator) + f"walk{separator}x{separator}1{separator}2{separator}val\n")
    assert named(file, tmp_path) == [("x_000001_000002.mp4", "walk")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "label,youtube_id,time_start\nx,y,1\n", "it lacks time_end"),
        ("a.csv", KINETICS + "x,y,soon,2,val\n", ":2: a label, a video and two times are wanted, got 'x', 'y', 'soon'"),
        ("a.csv", KINETICS, "names no video"),
        ("a.csv", "1;\n", ":1: `id;label` is wanted, got '1;'"),
        (
            "a.csv",
            "video;class\na.mp4;walk\n",
            "must have the columns path and label in its first line, got video;",
        ),
        ("a.csv", "path,label\na,b.mp4,walk\n", ":2: the row has 3 values, the header 2; a value with ',' must be in"),
        ("a.csv", f"path,label\n{'a' * 200000},x\n", ":2: the row cannot be read: field larger than field limit"),
        ("a.csv", "path,label\na.mp4,café\n".encode("latin1"), ":2: must be UTF-8 text, got the byte 0xe9; save it as"),
        ("a.csv", "a,b\n", "must have the columns path and label"),
        ("a.txt", "\nvideo.avi 1\n", ":2: `Class/video.avi 1` is wanted, got 'video.avi 1'"),
        ("a.json", "{", "is no JSON: "),
        ("a.json", '[{"id": 1, "template": "a"}, {"id": 2}]', "entry 2 must be an object with an id and a template"),
        ("x_test_split1.txt", "a.avi 3\n", ":1: `video.avi` and 0, 1 or 2 are wanted, got 'a.avi 3'"),
    ],
)
def test_malformed_files_are_one_sentence(tmp_path: Path, name: str, text: str | bytes, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        sources_from_labels(tmp_path if "split" in name else file, tmp_path)
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_label_file_may_be_in_the_folder_of_the_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "labels.csv").write_text("path,label\na.mp4,x\n")
    assert named(Path("labels.csv"), tmp_path) == [("a.mp4", "x")]
    Path("labels.csv").write_text("path,label\na.mp4,y\n")
    assert named(Path("labels.csv"), tmp_path) == [("a.mp4", "y")], "the working folder comes first"
    with pytest.raises(DataError, match=r"there is no file no\.csv with labels, neither in the working folder nor in "):
        named(Path("no.csv"), tmp_path)
