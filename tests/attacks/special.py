"""Attacks without damage: special files in place of regular ones, small files that grow, files that may not grow."""

import os
import random
import resource
import shutil
import socket
import zipfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml

from common import cli
from engine.config import load_config
from tests.attacks.attack_files import FORMATS, STORE_SUFFIXES, Command, Files
from tools import check_dataset, extract_frames, predict, report, visualize, weights


def special_file(files: Files, folder: Path, draw: random.Random) -> Command:
    """A pipe, a socket, a device, a folder or a loop of links in place of a file."""
    odd = folder / "odd"
    store = folder / "store"
    format = draw.choice(FORMATS)
    shutil.copytree(files.stores[format], store)
    check = [str(files.lists[format]), str(store), f"--format={format}", "--workers=1", "--decode"]
    frames = [str(files.lists["FRAME"]), str(files.stores["FRAME"]), "--workers=1"]
    inside = draw.choice(sorted(f for f in store.rglob("*") if f.suffix in STORE_SUFFIXES))
    commands: list[tuple[Path, Command]] = [
        (odd, partial(predict.main, [str(odd), f"--checkpoint={files.checkpoint}", "--clips=1", "--crops=1"])),
        (odd, partial(predict.main, [str(files.video), f"--checkpoint={odd}"])),
        (odd, partial(visualize.main, [str(odd), f"--checkpoint={files.checkpoint}", f"--out={folder / 'a.png'}"])),
        (odd, partial(weights.main, ["convert", str(odd), str(folder / "out.pth"), "--to=release"])),
        (odd, partial(report.main, [str(odd)])),
        (odd, partial(check_dataset.main, [str(odd), *frames[1:]])),
        (odd, partial(check_dataset.main, [*frames, f"--classes={odd}"])),
        (odd, partial(cli.run, lambda: bool(load_config(odd, [])) - 1)),
        (inside, partial(check_dataset.main, check)),
        (odd, partial(extract_frames.main, [str(files.videos), str(folder / "o"), f"--list={folder / 'l'}",
                                            f"--labels={odd}", "--workers=1"])),
    ]  # fmt: skip
    place, command = draw.choice(commands)
    place.unlink(missing_ok=True)
    kind = draw.choice(("pipe", "pipe", "socket", "device", "folder", "loop"))
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.relpath(place))  # such an address is short
    elif kind == "device":
        place.symlink_to(draw.choice(("/dev/zero", "/dev/full", "/dev/null", "/dev/tty")))
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to(place.name)
    return command


def bomb(files: Files, folder: Path, draw: random.Random) -> Command:
    """A small file that would take much memory or time."""
    kind = draw.choice(("checkpoint", "scores", "picture", "settings", "size", "template", "labels", "list"))
    file = folder / "file"
    if kind == "checkpoint":
        _compress(files.checkpoint, file, draw.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
        return partial(predict.main, [str(files.video), f"--checkpoint={file}"])
    if kind == "scores":
        np.savez_compressed(folder / "scores.npz", probabilities=np.zeros((20_000, 10, 400), np.float32))
        return partial(report.main, [str(folder / "scores.npz")])
    if kind == "picture":
        root = folder / "frames"
        shutil.copytree(files.stores["FRAME"], root)
        picture = np.zeros((draw.choice((9000, 16_000)), 8000, 3), np.uint8)
        data = cv2.imencode(draw.choice((".png", ".jpg")), picture)[1].tobytes()
        draw.choice(sorted(root.rglob("*.jpg"))).write_bytes(data)
        return partial(check_dataset.main, [str(files.lists["FRAME"]), str(root), "--decode", "--workers=1"])
    if kind == "settings":
        depth = draw.randrange(6, 40)
        file.write_text("a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}]\n" for i in range(1, depth)))
    elif kind == "size":
        section, key = draw.choice(
            [("dataset", "clip_length"), ("network", "width"), ("transform", "crop_size"), ("dataset", "num_segments")]
        )
        contents = torch.load(files.checkpoint, weights_only=True)
        contents["config"][section][key] = draw.choice((10**9, 10**6, 4096, 2**63))
        torch.save(contents, file)
        return partial(predict.main, [str(files.video), f"--checkpoint={file}"])
    elif kind == "template":
        settings = {**files.settings, "dataset": {**files.settings["dataset"]}}
        settings["dataset"]["frame_template"] = "{:0" + "9" * draw.randrange(3, 60) + "d}"
        file.write_text(yaml.safe_dump(settings))
    else:
        line = draw.choice((" " * 300_000 + "x", "a," * 200_000, '"' * 100_001, "[" * 100_000, "a/" * 50_000 + " 3 0"))
        file.write_text(f"path,label\n{line}\n" if kind == "labels" else f"{line}\n")
        if kind == "list":
            return partial(check_dataset.main, [str(file), str(files.stores["FRAME"]), "--workers=1"])
        out = [str(folder / "o"), f"--list={folder / 'l'}", f"--labels={file}", "--workers=1"]
        return partial(extract_frames.main, [str(files.videos), *out])
    return partial(cli.run, lambda: bool(load_config(file, [])) - 1)


def _compress(archive: Path, to: Path, method: int) -> None:
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(to, "w", method) as compressed:
        for name in whole.namelist():
            compressed.writestr(name, bytes(50_000_000) if name.endswith("/data/0") else whole.read(name))


def full_disk(files: Files, folder: Path, draw: random.Random) -> Command:
    """No file may grow beyond a random size while a command writes its result."""
    format = draw.choice(FORMATS)
    out = [str(folder / "o"), f"--list={folder / 'l'}", f"--format={format}", "--workers=1"]
    command = draw.choice(
        (
            partial(extract_frames.main, [str(files.videos), *out]),
            partial(weights.main, ["average", str(files.checkpoint), str(files.checkpoint), f"--out={folder / 'm'}"]),
            partial(weights.main, ["convert", str(files.checkpoint), str(folder / "m"), "--to=release"]),
            partial(
                visualize.main, [str(files.video), f"--checkpoint={files.checkpoint}", f"--out={folder / 'a.png'}"]
            ),
        )
    )
    limit = int(10 ** draw.uniform(3.3, 6))

    def limited() -> int | None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return command()

    return limited
