"""Every command of the pages that a processor can run without data of one's own, in a copy of the repository.

    python -m tests.walk.walk [PAGE ...] [--keep FOLDER]

The demo is made small first: few videos, a narrow network, one epoch; a fine-tuning has two. Other names of the pages
(my_videos, settings/NAME.yml, ...) get small files. Pages are walked in the order in which a reader meets them; the
demo of README.md comes first in any case. It takes some ten minutes on two cores. Exit code: 0; 1 if a command failed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.walk.plan import PAGES, ROOT, as_run, printed, programs, why_left_out

SMALLER = [  # (file, what is there, what the walk has)
    ("tools/demo.py", '{"train": 100, "val": 25}', '{"train": 4, "val": 4}'),
    ("settings/demo.yml", "epochs: 8", "epochs: 1"),
    ("settings/demo.yml", "warmup_epoch: 1", "warmup_epoch: 0"),
    ("settings/demo.yml", "width: 16", "width: 4"),
    ("sifa/finetune.py", "ITERATIONS, EPOCHS = 1000, (20, 100)", "ITERATIONS, EPOCHS = 4, (2, 2)"),
]
LIMIT = 600  # seconds of a command
CLIPS = {  # what a page's programs take for granted, and the places that they name
    "README.md": "import torch\nclip = torch.randn(2, 8, 64, 14, 14)\n",
    "use.md": "import torch\nclips = torch.randn(1, 3, 16, 64, 64)\n",
    "deploy.md": "import numpy\nclips = numpy.zeros((2, 3, 8, 48, 48), dtype=numpy.float32)\n",
}


def make_copy(folder: Path) -> None:
    """The repository as git would copy it, with the built op, and with a small demo."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in [
        *listed.stdout.decode().splitlines(),
        *(str(file.relative_to(ROOT)) for file in ROOT.glob("cuda_sifa/*.so")),
    ]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name, old, new in SMALLER:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r} any more"
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def prepare(folder: Path) -> None:
    """Small files under the names that the pages use, made of the demo's."""
    videos = folder / "data/demo/videos"
    for name in ("my_videos", "dark_actions"):
        for label in ("grow", "shrink"):
            shutil.copytree(videos / "train" / label, folder / name / label)
    shutil.copytree(videos / "train", folder / "VIDEOS")
    shutil.copy(videos / "val/grow/0000.mp4", folder / "new.mp4")
    rows = [
        f"{file.relative_to(folder / 'dark_actions')},{file.parent.name},{file.stem}"
        for file in folder.glob("dark_actions/*/*")
    ]
    (folder / "labels.csv").write_text("\n".join(["path,label,scene", *rows]) + "\n")
    (folder / "settings/NAME.yml").write_text("base: demo.yml\noutput_dir: output/NAME\noptimization: {epochs: 2}\n")
    for name in ("A", "B"):
        shutil.copytree(folder / "output/demo", folder / "output" / name)
    for file in (videos / "val").rglob("*.mp4"):  # another split for the same PACKS
        copy = folder / "VAL" / file.parent.name / f"val_{file.name}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    run("python -m tools.extract_frames VAL PACKS --list val.txt --format PACKED", folder)


def run(command: str, folder: Path) -> bool:
    """Runs a command of the shell and prints a line about it; after a failure also the end of what it printed."""
    began = time.monotonic()
    environment = {**os.environ, "SIFA_WITH_CUDA": "0", "VIRTUAL_ENV": sys.prefix, "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    environment.pop("PYTHONPATH", None)
    try:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT
        )
        code, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        code, said = -1, f"it took more than {LIMIT} s"
    print(
        f"{'ok' if not code else 'FAILED':<7}{time.monotonic() - began:4.0f} s  {command.splitlines()[0]}", flush=True
    )
    if code:
        print("\n".join(f"         {line}" for line in said.splitlines()[-15:]))
    return not code


def walk(pages: list[Path], folder: Path) -> int:
    """Runs the commands of some pages. Returns how many failed."""
    make_copy(folder)
    done = {"bash make.sh demo"}
    failures = 0 if run("bash make.sh demo", folder) else 1
    prepare(folder)
    for page in pages:
        print(f"\n{page.relative_to(ROOT)}")
        for command in printed(page):
            if reason := why_left_out(command):
                print(f"-              {command[:90]}: {reason}")
            elif (changed := as_run(command)) not in done:
                done.add(changed)
                failures += not run(changed, folder)
        if page.name in CLIPS:
            text = "\n".join([CLIPS[page.name], *programs(page)]).replace("PATH/TO/FOLDER", ".")
            (folder / "page.py").write_text(text)
            failures += not run("python page.py", folder)
    print(f"\n{failures} failed")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="(default: all)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty folder for the copy, which stays")
    args = parser.parse_args()
    pages = [page.resolve() for page in args.pages] or PAGES
    if missing := [str(page) for page in args.pages if not page.is_file()]:
        parser.error(f"no such page: {', '.join(missing)} (a path, such as docs/use.md)")
    if args.keep:
        return 1 if walk(pages, args.keep.resolve()) else 0
    with tempfile.TemporaryDirectory(prefix="sifa_walk_") as folder:
        return 1 if walk(pages, Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
