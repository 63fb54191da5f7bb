"""Bring up to date what docs/ says twice: the tables of configuration keys and of the paper's rows.

    python -m tools.document [--check]

docs/configuration.md has its tables from engine/schema.py, docs/paper.md from the headers of settings/; the text around
the markers is written by hand. --check changes nothing and ends with exit code 1 where a page is out of date.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.schema import Config

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- made by tools/document.py -->\n", "<!-- end -->\n"

# ---- Configuration --------------------------------------------------------------------------------------------------


def configuration() -> str:
    """A table of keys for each section of the schema, headed by the section's docstring."""
    schema = Config.model_json_schema()
    top = {key: value for key, value in schema["properties"].items() if "$ref" not in value}
    parts = ["## Without a section\n", _table(_keys(top, schema))]
    for section, value in schema["properties"].items():
        if "$ref" in value:
            described = _resolve(value, schema)
            parts += [f"## {section}\n", *_paragraph(described), _table(_keys(described["properties"], schema))]
    return "\n".join(parts)


def _paragraph(described: dict[str, Any]) -> list[str]:
    return [described["description"] + "\n"] if "description" in described else []


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _keys(properties: dict[str, Any], schema: dict[str, Any], within: str = "") -> Iterator[tuple[str, ...]]:
    """(key, value, default, meaning) of each key, and of the keys of a section within a section."""
    for key, value in properties.items():
        meaning = value.get("description", "")
        yield f"`{within}{key}`", _kind(value), _default(value["default"]), meaning
        for option in value.get("anyOf", []):
            if "$ref" in option:
                yield from _keys(_resolve(option, schema)["properties"], schema, f"{within}{key}.")


def _resolve(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][value["$ref"].rpartition("/")[2]]


def _default(value: Any) -> str:
    text = json.dumps(value)
    return f"`{text.replace('e-0', 'e-') if isinstance(value, float) else text}`"


_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _kind(value: dict[str, Any]) -> str:
    """What may stand for a value, in words, from its JSON schema."""
    if "anyOf" in value:
        return " or ".join(_kind(option) for option in value["anyOf"])
    if "$ref" in value:
        return "the keys below"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value["type"]
    if kind == "array":
        count = f"{value['minItems']} " if value.get("minItems") else ""
        return f"list of {count}{_plural(value['items'])}"
    if kind == "object":
        return f"patterns, each with a {_kind(value['additionalProperties'])}"
    limits = [f"{sign} {value[name]:.12g}" for name, sign in _LIMITS.items() if name in value]
    words = {"string": "text", "boolean": "true, false", "null": "null"}
    return ", ".join([f"{words.get(kind, kind)} {limits[0]}", *limits[1:]] if limits else [words.get(kind, kind)])


def _plural(items: dict[str, Any]) -> str:
    if "enum" in items:
        return f"some of {_kind(items)}"
    return {"integer": "integers", "number": "numbers", "string": "texts"}[items["type"]]


# ---- The paper ------------------------------------------------------------------------------------------------------

# Heading -> which settings files have its rows, in the order of the paper.
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


def paper() -> str:
    """A table for each of the paper's, its rows from the headers of the settings files."""
    parts = []
    for heading, pattern in TABLES.items():
        parts.append(f"## {heading}\n\n| row | the paper | GMACs at 224 | ours | command |\n|---|---|---|---|---|")
        files = sorted((ROOT / "settings").glob(pattern), key=_place)
        parts += [_row(file) for file in files]
        parts.append("")
    return "\n".join(parts)


def _place(file: Path) -> tuple[float, ...]:
    """By backbone and frames; the ablations by the paper's figure, as there."""
    backbone = re.search(r"resnet50|resnet101|swin", file.name)
    if backbone:
        frames = max(int(n) for n in re.findall(r"\d+", file.stem.partition("-")[2].partition(".")[0]))
        return ("resnet50", "resnet101", "swin").index(backbone[0]), frames
    figure = re.search(r"(\d\d\.\d) top-1", _header(file))
    return float(figure[1]) if figure else 0, len(file.stem), *map(int, re.findall(r"\d+", file.stem))


def _header(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))


def _row(file: Path) -> str:
    name = file.relative_to(ROOT / "settings").with_suffix("").as_posix()
    header = _header(file)

    def find(pattern: str) -> str | None:
        found = re.search(pattern, header)
        return found[1] if found else None

    title = header.removeprefix("Ablation: ").removeprefix("variants, ").partition(". ")[0]
    title = re.sub(r", (Kinetics-400|Something-Something V\d)$|; SIFA in res5$| in res5\b", "", title)
    figure = find(r"[Tt]he paper(?: gives|:) (\d\d\.\d top-1(?: / \d\d\.\d top-5)?)")
    views, gflops = find(r"with (\d+) views"), find(r"([\d.]+) GFLOPs a view")
    counted = find(r"Counted here: ([\d.]+) GMACs")
    weights = find(r"network\.pretrained_model=(\S+)")
    crop = find(r"eva_crop_size=(\d+)") or find(r"crops of (\d+)\)")
    ours = "not run" if "Not run by us" in header else "see the file"
    given = f"{figure}, {views} views" + (f", {gflops} GFLOPs" if gflops else "")
    clips = int(views or 0) // 3
    commands = f"`train {name} {weights}`<br>`views {name} {clips} {crop}`"
    return f"| [{title}](../settings/{name}.yml) | {given} | {counted} | {ours} | {commands} |"


# ---- Pages ----------------------------------------------------------------------------------------------------------

PAGES: dict[str, Callable[[], str]] = {"docs/configuration.md": configuration, "docs/paper.md": paper}


def brought_up_to_date(page: str, generated: str) -> str:
    """The page with what stands between its markers replaced."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must have the lines {BEGIN.strip()} and {END.strip()}")
    return f"{before}{BEGIN}\n{generated}\n{END}{after}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say which pages are out of date")
    options = parser.parse_args(argv)
    stale = 0
    for name, generate in PAGES.items():
        path = ROOT / name
        page = path.read_text(encoding="utf-8")
        wanted = brought_up_to_date(page, generate())
        if page == wanted:
            continue
        if options.check:
            print(f"{name} is out of date: python -m tools.document", file=sys.stderr)
            stale = 1
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"{name} is up to date now")
    return stale


if __name__ == "__main__":
    sys.exit(main())
