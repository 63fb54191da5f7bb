"""Every file of settings/: it can be read, built and trained on, and costs what it says."""

import re
from pathlib import Path

import pytest
import torch

from engine.config import load_config
from engine.schema import Config
from sifa.build import build_network
from sifa.complexity import measure_config
from sifa.documents.paper_tables import has_paper_figure
from tests.engine.runs import new_training, train_one_epoch

SETTINGS = Path(__file__).parents[2] / "settings"
FILES = sorted(SETTINGS.rglob("*.yml"))
PAPER = [file for file in FILES if has_paper_figure(file)]  # others may be there: variants and settings of one's own
WIDTHS = {"swin_vit_s": 6, "swin_vit_b": 8, "swin_vit_l": 12}  # small, and divisible by the number of heads


def name_of(file: Path) -> str:
    return file.relative_to(SETTINGS).with_suffix("").as_posix()


def read(name: str, *changes: str) -> Config:
    return load_config(SETTINGS / f"{name}.yml", changes)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_one_training_step_at_reduced_size(file: Path) -> None:
    net_name = load_config(file).network.net_name
    width = next((width for size, width in WIDTHS.items() if size in net_name), 4)
    config = load_config(file, [f"network.width={width}", "optimization.iter_size=1", "optimization.warmup_epoch=0"])
    model = build_network(config)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    frames = config.dataset.num_segments * config.dataset.clip_length
    clips = torch.randint(256, (2, frames, 32, 32, 3), dtype=torch.uint8)
    batch = clips, torch.tensor([0, config.dataset.num_classes - 1]), torch.arange(2)
    trained = train_one_epoch(new_training(model, config, 1), [batch], config)
    assert 0 < trained.loss < float("inf")
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    classifier = before.keys() & {"fc.weight", "fc_dual.weight"}
    assert all(not torch.equal(before[name], model.get_parameter(name)) for name in classifier)


def header_of(file: Path) -> str:
    return " ".join(line.lstrip("# ") for line in file.read_text().splitlines() if line.startswith("#"))


@pytest.mark.parametrize("file", PAPER, ids=name_of)
def test_the_header_gives_command_figure_and_cost(file: Path) -> None:
    header = header_of(file)
    assert f"--config_file=settings/{name_of(file)}.yml" in header
    assert re.search(r"[Tt]he paper.*\d\d\.\d top-1.*\d+ views", header)
    assert re.search(r"\d+ GFLOPs a view|GFLOPs not given", header)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_header_gives_the_cost_that_is_counted(file: Path) -> None:
    if counted := re.search(r"Counted here: ([\d.]+) GMACs at 224 x 224", header_of(file)):
        multiply_adds = sum(measure_config(load_config(file), 224).multiply_adds.values()) / 1e9
        assert multiply_adds == pytest.approx(float(counted[1]), abs=0.006)


# SIFA.md, section 4: counted on the release's models, whose Swin has the regular neighbourhood.
@pytest.mark.parametrize(
    ("name", "size", "gmacs", "tolerance"),
    [
        ("c2d_sifa_resnet50-1x16x1.k400", 224, 23.90, 0.005),
        ("c2d_sifa_resnet50-1x16x1.k400", 256, 31.22, 0.005),
        ("c2d_sifa_resnet101-1x16x1.k400", 256, 50.95, 0.005),
        ("c2d_sifa_resnet50-1x32x1.k400", 256, 62.43, 0.005),
        ("c2d_sifa_resnet50-1x64x1.k400", 256, 124.86, 0.005),
        ("c2d_sifa_swin-b-1x64x2.k400", 224, 274.94, 0.01),
    ],
)
def test_multiply_adds_of_the_release(name: str, size: int, gmacs: float, tolerance: float) -> None:
    changes = ["SIFA.offset=regular"] if "swin" in name else []
    counted = sum(measure_config(read(name, *changes), size).multiply_adds.values()) / 1e9
    assert counted == pytest.approx(gmacs, rel=tolerance)


def test_every_row_of_the_paper_has_its_file() -> None:
    networks = {
        f"c2d_sifa_resnet{depth}-{frames}"
        for depth in (50, 101)
        for t in (16, 32, 64)
        for frames in (f"1x{t}x1.k400", f"{t}x1x1.ssv1", f"{t}x1x1.ssv2")
    } | {f"c2d_sifa_swin-b-{frames}" for frames in ("1x64x2.k400", "64x1x1.ssv1", "64x1x1.ssv2")}
    ablations = {
        f"ablations/{row}"
        for row in (
            *("variant-2d", "variant-sifa_c", "variant-sifa_r", "variant-sifa"),
            *("offset-next_frame", "offset-conv3d", "offset-difference"),
            *("kernel-1", "kernel-5", "kernel-7", "kernel-9"),
            *("stages-res45", "stages-res345", "stages-res2345"),
            *("temporal-conv", "temporal-shift", "temporal-correlation", "temporal-difference"),
        )
    }
    assert {name_of(file) for file in PAPER} == networks | ablations


@pytest.mark.parametrize("file", [file for file in PAPER if ".ssv" in file.name], ids=name_of)
def test_something_something_is_not_flipped(file: Path) -> None:
    config = load_config(file)
    assert not config.transform.horizontal_flip
    assert (config.dataset.num_classes, config.dataset.clip_length) == (174, 1)
    assert config.dataset.num_segments in (16, 32, 64)


def test_a_step_of_four_gpus_is_the_same_number_of_clips_whatever_the_length() -> None:
    for dataset, clips in (("k400", 384), ("ssv1", 96), ("ssv2", 96)):
        for file in [file for file in PAPER if file.match(f"c2d_sifa_resnet*.{dataset}.yml")]:
            settings = load_config(file).optimization
            assert 4 * settings.batch_size * settings.iter_size == clips, file.name
