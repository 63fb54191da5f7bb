"""The attacks: damaged files, texts, names and variables, each for the command that it belongs to."""

import os
import random
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from common import cli
from engine.config import load_config
from engine.distributed import start
from engine.scores import Scores, save_scores
from tests.attacks.attack_files import FORMATS, STORE_SUFFIXES, Command, Files
from tests.attacks.damage import NAMES, VALUES, damage_bytes, damage_text
from tests.attacks.special import bomb, full_disk, special_file
from tools import check_dataset, extract_frames, finetune, predict, report, visualize, weights

#: Makes the input in a folder and returns the command that reads it.
Attack = Callable[[Files, Path, random.Random], Command]


def checkpoint(files: Files, folder: Path, draw: random.Random) -> Command:
    file = folder / "last.pth"
    file.write_bytes(damage_bytes(files.checkpoint.read_bytes(), draw))
    return _checkpoint_command(files, file, folder, draw)


def checkpoint_entries(files: Files, folder: Path, draw: random.Random) -> Command:
    """A whole file with entries of other types, values and shapes."""
    contents = torch.load(files.checkpoint, weights_only=True)
    odd = [None, 3, -1, 1e300, "x", [], {}, [1], {"a": 1}, torch.zeros(3), torch.zeros(2, dtype=torch.int64), True]
    kind = draw.choice(("entry", "missing", "weight", "config", "names", "whole"))
    if kind == "entry":
        contents[draw.choice(list(contents))] = draw.choice(odd)
    elif kind == "missing":
        del contents[draw.choice(list(contents))]
    elif kind == "weight":
        name = draw.choice(list(contents["model"]))
        value = contents["model"][name]
        changed = [*odd, value.int(), value.to(torch.complex64), value[None], value.half(), value * torch.nan]
        contents["model"][name] = draw.choice(changed)
    elif kind == "config":
        section = draw.choice(list(contents["config"]))
        values = contents["config"][section]
        if isinstance(values, dict) and values and draw.random() < 0.8:
            values[draw.choice(list(values))] = draw.choice([*odd, 10**9, 4096, 0, "\x1b[2J"])
        else:
            contents["config"][section] = draw.choice(odd)
    elif kind == "names":
        contents["classes"] = draw.sample([name for name in NAMES if name], len(contents["classes"]))
    else:
        contents = draw.choice(odd)
    file = folder / "last.pth"
    torch.save(contents, file)
    return _checkpoint_command(files, file, folder, draw)


def _checkpoint_command(files: Files, file: Path, folder: Path, draw: random.Random) -> Command:
    commands: list[Command] = [
        partial(predict.main, [str(files.video), f"--checkpoint={file}", "--clips=1", "--crops=1"]),
        partial(weights.main, ["average", str(file), str(files.checkpoint), f"--out={folder / 'mean.pth'}"]),
        partial(weights.main, ["convert", str(file), str(folder / "out.pth"), "--to=release", "--clip_length=8"]),
    ]
    return draw.choice(commands)


def safetensors_file(files: Files, folder: Path, draw: random.Random) -> Command:
    file = folder / "model.safetensors"
    data = files.safetensors.read_bytes()
    start_of_data = 8 + int.from_bytes(data[:8], "little")
    header = data[8:start_of_data]
    if draw.random() < 0.6:
        odd = [b"-1", b"4611686018427387904", b"null", b"[]", b"[" * 5000, b'"x"', b"1e9", b'"F32"', b'"I32"', b"0"]
        words = [b"0", b"1", b"2", b"3", b"4", b'"F32"', b'"shape"', b"[", b"]", b"{", b","]
        word = draw.choice([word for word in words if word in header])
        places = header.split(word)
        at = draw.randrange(1, len(places))
        header = word.join(places[:at]) + draw.choice(odd) + word.join(places[at:])
        file.write_bytes(len(header).to_bytes(8, "little") + header + data[start_of_data:])
    else:
        file.write_bytes(damage_bytes(data, draw))
    return partial(weights.main, ["convert", str(file), str(folder / "out.pth"), "--to=release", "--clip_length=8"])


def store(files: Files, folder: Path, draw: random.Random) -> Command:
    """A store of any format with a damaged file."""
    format = draw.choice(FORMATS)
    return _damaged_store(files, folder, draw, format, decode=draw.random() < 0.8)


def jpeg(files: Files, folder: Path, draw: random.Random) -> Command:
    return _damaged_store(files, folder, draw, "FRAME", decode=True)


def _damaged_store(files: Files, folder: Path, draw: random.Random, format: str, *, decode: bool) -> Command:
    root = folder / "frames"
    shutil.copytree(files.stores[format], root)
    file = draw.choice(sorted(f for f in root.rglob("*") if f.is_file() and f.suffix in STORE_SUFFIXES))
    file.write_bytes(damage_bytes(file.read_bytes(), draw))
    options = [f"--format={format}", "--workers=1", *(["--decode"] if decode else [])]
    return partial(check_dataset.main, [str(files.lists[format]), str(root), *options])


def record(files: Files, folder: Path, draw: random.Random) -> Command:
    """The notes that an extraction left with its frames."""
    root = folder / "frames"
    shutil.copytree(files.stores["FRAME"], root)
    notes = sorted(f for f in root.rglob("*") if f.is_file() and f.suffix != ".jpg")
    file = draw.choice(notes)
    file.write_bytes(damage_bytes(file.read_bytes(), draw))
    return partial(extract_frames.main, [str(files.videos), str(root), f"--list={folder / 'list.txt'}", "--workers=1"])


def video(files: Files, folder: Path, draw: random.Random) -> Command:
    source = draw.choice(files.films)
    file = folder / f"v{source.suffix}"
    file.write_bytes(damage_bytes(source.read_bytes(), draw))
    return partial(predict.main, [str(file), f"--checkpoint={files.checkpoint}", "--clips=1", "--crops=1"])


def settings(files: Files, folder: Path, draw: random.Random) -> Command:
    file = folder / "settings.yml"
    if draw.random() < 0.5:
        file.write_bytes(damage_text(yaml.safe_dump(files.settings), draw))
    else:
        section = draw.choice(list(files.settings))
        key = draw.choice(list(files.settings[section]))
        text = f"{section}: {{{key}: {draw.choice(VALUES + NAMES)}}}\n"
        if draw.random() < 0.2:
            text = f"base: {draw.choice(VALUES + NAMES)}\n"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return partial(cli.run, partial(_load_config, file, []))


def set_option(files: Files, folder: Path, draw: random.Random) -> Command:
    section = draw.choice(list(files.settings))
    key = draw.choice(list(files.settings[section]))
    value = draw.choice(VALUES + NAMES).replace("\x00", "")
    text = draw.choice(
        (f"{section}.{key}={value}", f"{section}.{key}", f"{value}={value}", f"{section}={value}", value)
    )
    return partial(cli.run, partial(_load_config, files.settings_file, [text]))


def _load_config(file: Path, changes: list[str]) -> None:
    load_config(file, changes)


def list_file(files: Files, folder: Path, draw: random.Random) -> Command:
    listed, classes = folder / "list.txt", folder / "classes.txt"
    listed.write_bytes(files.lists["FRAME"].read_bytes())
    classes.write_bytes(b"a\nb\n")
    damaged = draw.choice((listed, listed, classes))
    damaged.write_bytes(damage_text(damaged.read_text(), draw))
    return partial(check_dataset.main, [str(listed), str(files.stores["FRAME"]), f"--classes={classes}", "--workers=1"])


def names(files: Files, folder: Path, draw: random.Random) -> Command:
    """Names of classes and videos, whole files."""
    file = folder / f"{_file_name(draw)}.avi"
    shutil.copy(files.films[0], file)
    options = [f"--checkpoint={files.checkpoint}"]
    if draw.random() < 0.1:
        out = folder / draw.choice(("a.png", "a.html"))
        return partial(visualize.main, [str(file), *options, f"--out={out}", *(["--html"] * (out.suffix == ".html"))])
    return partial(predict.main, [str(file), *options, "--clips=1", "--crops=1"])


def _file_name(draw: random.Random) -> str:
    """One of the odd names that a file system takes."""
    usable = [name for name in NAMES if name not in ("", "..", " ") and not {"/", "\x00"} & set(name)]
    return draw.choice([name for name in usable if len(os.fsencode(name)) < 200])


def own_videos(files: Files, folder: Path, draw: random.Random) -> Command:
    """A training from a folder of videos with a damaged one, damaged labels, odd names or odd options."""
    videos = folder / "videos"
    shutil.copytree(files.videos, videos)
    labels = folder / "labels.csv"
    labels.write_text("path,label\na/one.avi,x\na/two.avi,x\nb/three.avi,y\nb/four.avi,y\n")
    shutil.copy(files.videos / "b/three.avi", videos / "b/four.avi")
    options = [f"--checkpoint={files.checkpoint}", f"--out={folder / 'out'}", "--epochs=1", "--share=0.5"]
    kind = draw.choice(("labels", "labels", "video", "names", "option"))
    if kind == "labels":
        labels.write_bytes(damage_text(labels.read_text(), draw))
    elif kind == "video":
        file = videos / "b/three.avi"
        file.write_bytes(damage_bytes(file.read_bytes(), draw))
    elif kind == "names":
        shutil.copytree(videos / "b", videos / _file_name(draw))
    else:
        option = draw.choice(("--group", "--validate", "--share", "--seed", "--format", "--set"))
        options += [option, draw.choice(VALUES + NAMES).replace("\x00", "")]
    options += [f"--labels={labels}"] if kind == "labels" else []
    return partial(finetune.main, [str(videos), *options])


def scores(files: Files, folder: Path, draw: random.Random) -> Command:
    """scores.npz: names that nobody expects, damaged bytes, arrays of other types."""
    classes = draw.sample([name for name in NAMES if "\x00" not in name], 3)
    random_scores = np.random.default_rng(draw.randrange(2**32)).random((4, 2, 3), dtype=np.float32)
    values: dict[str, Any] = {
        "videos": draw.sample(NAMES, 4),
        "labels": np.arange(4) % 3,
        "probabilities": random_scores / random_scores.sum(2, keepdims=True),
        "classes": classes,
        "clips": 2,
        "crops": 1,
        "list_file": draw.choice(NAMES),
        "root_path": str(files.stores["FRAME"]),
        "format": "FRAME",
        "frame_template": "",
        "first_frame": 1,
    }
    file = folder / "scores.npz"
    save_scores(file, Scores(**values))
    if draw.random() < 0.7:
        odd: list[Any] = [3, -1, 1.5, "x", [], [[1]], np.zeros((2, 2)), np.zeros(3, "U2"), np.zeros(4, "M8[s]"), True]
        arrays = {name: np.asarray(value) for name, value in values.items()}
        if draw.random() < 0.7:
            arrays[draw.choice(list(arrays))] = np.asarray(draw.choice(odd))
            np.savez(file, **arrays)  # type: ignore[arg-type]
        else:
            file.write_bytes(damage_bytes(file.read_bytes(), draw))
    return partial(report.main, [str(file), f"--out={folder}"])


def environment(files: Files, folder: Path, draw: random.Random) -> Command:
    """Variables that a launcher sets, and some of the libraries'."""
    odd = ("", "x", "-1", "0", "1", "1.5", "9" * 30, " ", "\x1b[31m", "1e3")
    variables = {
        name: draw.choice(odd)
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE")
        if draw.random() < 0.5
    }
    if variables.get("WORLD_SIZE", "").strip() in ("1", "0", ""):
        variables.setdefault("OMP_NUM_THREADS", draw.choice(odd[:5]))

    def command() -> None:
        os.environ.update(variables)
        start(None, timedelta(seconds=5))

    return partial(cli.run, command)


#: Attack -> share of all.
ATTACKS: dict[Attack, int] = {
    checkpoint: 14,
    checkpoint_entries: 14,
    safetensors_file: 10,
    store: 12,
    jpeg: 8,
    record: 2,
    video: 5,
    settings: 12,
    set_option: 10,
    list_file: 8,
    names: 3,
    own_videos: 3,
    scores: 5,
    environment: 6,
    special_file: 8,
    bomb: 6,
    full_disk: 4,
}
