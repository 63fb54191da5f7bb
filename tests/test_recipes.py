"""The recipes of CONTRIBUTING.md, followed step by step in a copy of the repository."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHANGED = ("models", "datasets", "engine", "sifa", "tools", "settings", "docs")
READ = ("cuda_sifa", "common", "visualization", "base_config", "train_val_3d.py", "hubconf.py")
STEP = re.compile(r"^\d\. (.*?)(?=^\d\. |\Z)", re.MULTILINE | re.DOTALL)


def recipe(title: str) -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return STEP.findall(text.partition(f"\n## {title}\n")[2].partition("\n## ")[0])


def code_of(step: str) -> str:
    """The block of a step, without the indentation of the list."""
    (block,) = re.findall(r"^   ```\w+\n(.*?)^   ```$", step, re.MULTILINE | re.DOTALL)
    return "".join(line.removeprefix("   ") for line in block.splitlines(keepends=True))


def follow(step: str, folder: Path) -> None:
    """Does what a step says, if it is about a file: a block before a line, one text for another, or a new file."""
    sentence = " ".join(step.partition("```")[0].split("\n   "))
    if found := re.match(r"In `(\S+)`, before `(.*?)`", sentence):
        file = folder / found[1]
        lines = file.read_text(encoding="utf-8").split("\n")
        assert lines.count(found[2]) == 1, f"{found[1]} has {lines.count(found[2])} lines {found[2]!r}"
        lines.insert(lines.index(found[2]), code_of(step).removesuffix("\n"))
        file.write_text("\n".join(lines), encoding="utf-8")
    elif found := re.match(r"In `(\S+)`, (?:[^`]*: )?replace `(.*?)` by `(.*?)`", sentence):
        file = folder / found[1]
        text = file.read_text(encoding="utf-8")
        assert text.count(found[2]) == 1, f"{found[1]} has {text.count(found[2])} times {found[2]!r}"
        file.write_text(text.replace(found[2], found[3]), encoding="utf-8")
    elif found := re.match(r"A settings file of your own, `(\S+)`", sentence):
        (folder / found[1]).parent.mkdir(parents=True)
        (folder / found[1]).write_text(code_of(step), encoding="utf-8")


RESULT = """
    import numpy as np
    import torch
    from tools import document
    assert document.main(["--check"]) == 1, "the tables lack the new key and name"
    assert document.main([]) == document.main(["--check"]) == 0
    page = open("docs/configuration.md", encoding="utf-8").read()
    assert "| `reverse` | number ≥ 0, ≤ 1 | `0.0` | share of the clips that run backwards |" in page
    assert "`mean`" in page

    from datasets.transforms import train_transform
    from engine.config import load_config
    from engine.optim import build_optimizer
    from models.temporal import TemporalMean
    from sifa.build import _train_transform, build_network
    module, clip = TemporalMean(2), torch.rand(1, 3, 2, 4, 5)
    assert not module(clip).any()
    module.share.data.fill_(1)
    torch.testing.assert_close(module(clip)[:, 1], clip.mean(1))
    config = load_config("settings/mine/mean.yml", ["network.width=4", "transform.reverse=1"])
    network = build_network(config)
    assert any(name.endswith("temporal.share") for name, _ in network.named_parameters())
    build_optimizer(network, config.optimization)  # the demo's pattern for SIFA's offsets warns
    assert all(logits.shape == (1, 8) for logits in network(torch.rand(1, 3, 8, 32, 32)))

    frames = np.random.default_rng(0).integers(0, 256, (4, 40, 40, 3), dtype=np.uint8)
    def draw(transform):
        torch.manual_seed(0)
        return transform(frames)
    forward = draw(_train_transform(config.model_copy(
        update={"transform": config.transform.model_copy(update={"reverse": 0.0})})))
    assert (draw(_train_transform(config)) == forward[::-1]).all()
"""


@pytest.mark.parametrize("title", ["Add a temporal module", "Add an augmentation"])
def test_every_step_is_one_that_can_be_followed(title: str) -> None:
    steps = recipe(title)
    assert len(steps) >= 6
    for step in steps:
        for file in re.findall(r"`((?:models|datasets|engine|sifa|tests)/\S+\.py)`", step):
            assert (ROOT / file).is_file(), file


def test_the_recipes_lead_to_what_they_promise(tmp_path: Path) -> None:
    for name in CHANGED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in READ:
        (tmp_path / name).symlink_to(ROOT / name)
    for title in ("Add a temporal module", "Add an augmentation"):
        for step in recipe(title):
            follow(step, tmp_path)
    code = textwrap.dedent(RESULT)
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert "no parameter of this network is named like *.temporal.offset.weight" in run.stderr
