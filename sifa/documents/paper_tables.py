"""The paper's results as tables in Markdown, for docs/paper.md: a row for each settings file that has one of them.

The header of such a file, its comment lines, says what it is, the command, the paper's figure and the cost. A settings
file whose header has no figure of the paper, as that of a variant that the paper does not have, gets no row.
"""

import re
from pathlib import Path

from common.errors import UserError

# Heading -> settings files of its rows, in the order of the paper.
TABLES = {
    "Kinetics-400": "c2d_*.k400.yml",
    "Something-Something V1": "c2d_*.ssv1.yml",
    "Something-Something V2": "c2d_*.ssv2.yml",
    "Ablations: variants, in res5": "ablations/variant-*.yml",
    "Ablations: what predicts the offsets, in res5": "ablations/offset-*.yml",
    "Ablations: size of the neighbourhood, in res5": "ablations/kernel-*.yml",
    "Ablations: stages with SIFA": "ablations/stages-*.yml",
    "Ablations: what stands in SIFA's place, in res5": "ablations/temporal-*.yml",
}
_FIGURE = re.compile(r"[Tt]he paper(?: gives|:) ((\d\d\.\d) top-1(?: / \d\d\.\d top-5)?)")
_BACKBONES = ("resnet50", "resnet101", "swin")


def paper_tables(settings: Path) -> str:
    """A table for each of the paper's.

    Args:
        settings: the folder of the settings files.

    Raises:
        UserError: a header has the paper's figure and lacks something else of a row.
    """
    parts = []
    for heading, pattern in TABLES.items():
        parts.append(f"## {heading}\n\n| row | the paper | GMACs at 224 | ours | command |\n|---|---|---|---|---|")
        files = sorted(filter(has_paper_figure, settings.glob(pattern)), key=_order)
        parts += [_row(file, file.relative_to(settings).with_suffix("").as_posix()) for file in files]
        parts.append("")
    return "\n".join(parts)


def has_paper_figure(file: Path) -> bool:
    """Whether a settings file is one of the paper's: its header has the paper's accuracy."""
    return _FIGURE.search(_header(file)) is not None


def _header(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def _order(file: Path) -> tuple[float, ...]:
    """By backbone and frames; the ablations by the paper's figure, as there."""
    backbone = re.search("|".join(_BACKBONES), file.name)
    if backbone:
        numbers = re.findall(r"\d+", file.stem.partition("-")[2].partition(".")[0])
        return _BACKBONES.index(backbone[0]), max(map(int, numbers), default=0)
    figure = _FIGURE.search(_header(file))
    return float(figure[2]) if figure else 0, len(file.stem), *map(int, re.findall(r"\d+", file.stem))


def _row(file: Path, name: str) -> str:
    """The row of a settings file.

    Args:
        name: of the file, below settings/ and without extension.
    """
    header = _header(file)

    def find(what: str, *patterns: str) -> str:
        for pattern in patterns:
            if match := re.search(pattern, header):
                return match[1]
        raise UserError(f"{file}: the header has the paper's figure, but no {what}")

    title = header.removeprefix("Ablation: ").removeprefix("variants, ").partition(". ")[0]
    title = re.sub(r", (Kinetics-400|Something-Something V\d)$|; SIFA in res5$| in res5\b", "", title)
    views = find("number of views (`with 30 views`)", r"with (\d+) views")
    gflops = re.search(r"([\d.]+) GFLOPs a view", header)
    figure = f"{find('figure', _FIGURE.pattern)}, {views} views" + (f", {gflops[1]} GFLOPs" if gflops else "")
    counted = find("cost (`Counted here: 23.85 GMACs`)", r"Counted here: ([\d.]+) GMACs")
    weights = find("weights (`network.pretrained_model=FILE`)", r"network\.pretrained_model=(\S+)")
    crop = find("crop (`evaluation.eva_crop_size=256`)", r"eva_crop_size=(\d+)", r"crops of (\d+)\)")
    ours = "not run" if "Not run by us" in header else "see the file"
    commands = f"`train {name} {weights}`<br>`views {name} {int(views) // 3} {crop}`"
    return f"| [{title}](../settings/{name}.yml) | {figure} | {counted} | {ours} | {commands} |"
