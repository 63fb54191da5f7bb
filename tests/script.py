"""What the tests of train_val_3d.py share: a tiny data set, the way to call the script, and to read what it left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

ROOT = Path(__file__).parents[1]
FRAMES, SIZE, VIDEOS = 10, 24, 7  # VIDEOS is odd: shares and batches do not come out even


def write_frames(folder: Path) -> None:
    """Seven tiny videos as folders of frames."""
    random = np.random.RandomState(0)
    for video in range(VIDEOS):
        (folder / f"v {video}").mkdir(parents=True)
        for frame in range(1, FRAMES + 1):
            image = random.randint(0, 255, (SIZE, SIZE + 4, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"v {video}" / f"{frame:05d}.jpg"), image)


def write_data(folder: Path) -> None:
    """Seven tiny videos of three classes as frames, with a list, class names and settings."""
    write_frames(folder / "frames")
    lines = [f"v {video} {FRAMES} {video % 3}" for video in range(VIDEOS)]
    (folder / "list.txt").write_text("\n".join(lines) + "\n")
    (folder / "classes.txt").write_text("a\nb\nc\n")
    (folder / "settings.yml").write_text(
        f"""
dataset:
  root_path: {folder}/frames
  list_file: {folder}/list.txt
  eva_list_file: {folder}/list.txt
  classes_file: {folder}/classes.txt
  num_classes: 3
  clip_length: 8
  num_workers: 0
transform: {{crop_size: 16, color_jitter: false}}
evaluation: {{eva_crop_size: 16, batch_size: 3}}
network: {{net_name: c2d_sifa_resnet26, width: 4}}
optimization: {{epochs: 2, batch_size: 2, base_learning_rate: 0.01, warmup_epoch: 0}}
logging: {{print_freq: 1, pictures: false}}
"""
    )


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    return [f"--config_file={data}/settings.yml", "--set", f"output_dir={output}", *more]


def metrics(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def weights(output: Path, name: str = "last.pth") -> dict[str, torch.Tensor]:
    return torch.load(output / "checkpoints" / name, weights_only=True)["model"]


def launch(
    how: list[str], processes: int, *args: str, program: str = "train_val_3d.py"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *how, f"--nproc_per_node={processes}", program, *args],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
