"""The pages: links, commands and keys exist, examples run, messages read so, generated tables are up to date."""

import ast
import contextlib
import fnmatch
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.schema import Config, Section
from engine.schema_tables import schema_tables
from sifa.documents.paper_tables import has_paper_figure
from tools import document

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
SCRIPTS = sorted((ROOT / "docs").glob("*.sbatch"))

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+://", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors(path), f"{name} has no heading {anchor}"


# ---- Commands -------------------------------------------------------------------------------------------------------


def module(name: str) -> Path:
    return ROOT / f"{name.replace('.', '/')}.py"


def source_with_shared_options(name: str) -> str:
    """The source of a command, and of the modules at its side that it imports: some options are shared."""
    source = module(name).read_text(encoding="utf-8")
    shared = re.findall(r"^from ((?:benchmarks|tools|common)\.\w+) import", source, re.MULTILINE)
    return "".join([source, *(module(path).read_text(encoding="utf-8") for path in {*shared, "common.cli"})])


@pytest.mark.parametrize("page", [*PAGES, *SCRIPTS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_name_what_there_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for name in re.findall(r"\bsettings/[\w./-]+\.yml", text):
        assert (ROOT / name).is_file() or "NAME" in name or name.startswith("settings/mine"), name
    commands = re.findall(r"-m ((?:tools|benchmarks)\.\w+)\b([^\n`]*)", text)
    commands += [("train_val_3d", rest) for rest in re.findall(r"train_val_3d\.py\b([^\n`]*)", text)]
    for name, rest in commands:
        if name.endswith("NAME"):
            continue
        assert module(name).is_file(), name
        source = source_with_shared_options(name)
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", rest.split("|")[0]):
            assert f'"{option}"' in source or option == "--help", f"{name} has no {option}"


@every_page
def test_commands_are_understood(page: Path) -> None:
    """The command's own parser takes the arguments of every printed command; what stands in brackets is left out."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:python3?|python\}) -m (tools\.[a-z]\w*) ([^\n`|#]*)", text)
    commands += [("train_val_3d", rest) for rest in re.findall(r"train_val_3d\.py ([^\n`|#]*)", text)]
    for name, rest in commands:
        parse = getattr(importlib.import_module(name), "parse_arguments" if name == "train_val_3d" else "_parse", None)
        whole = name != "train_val_3d" or "--config_file" in rest
        if parse is None or not whole or re.search(r"\.\.\.|…|\$|--help", rest) or rest.count("'") % 2:
            continue  # not a whole command, or one of a shell function
        try:
            parse(shlex.split(re.sub(r"\[[^]]*\]", "", rest) if "'" not in rest else rest))
        except SystemExit:
            pytest.fail(f"{name} {rest}")


@pytest.mark.parametrize("page", [*PAGES, *SCRIPTS], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_keys_are_keys_of_the_configuration(page: Path) -> None:
    sections = {name: value for name, value in dict(Config()).items() if isinstance(value, Section)}
    for section, key in re.findall(rf"\b({'|'.join(sections)})\.(\w+)(?==)", page.read_text(encoding="utf-8")):
        known = type(sections[section]).model_fields
        assert key in known or key in ("base_lerning_rate", "reverse"), f"there is no key {section}.{key}"


def test_jobs_and_variables_of_the_installation() -> None:
    page = (ROOT / "docs/install.md").read_text()
    make = (ROOT / "make.sh").read_text()
    sources = make + "".join((ROOT / "cuda_sifa" / name).read_text() for name in ("build.sh", "setup.py", "toolkit.py"))
    jobs = re.findall(r"^  (\w+)\) ", make, re.MULTILINE)
    assert "demo" in jobs
    for job in jobs:
        assert re.search(rf"^\|.*`{job}\b", page, re.MULTILINE), f"docs/install.md does not tell of make.sh {job}"
    variables = re.findall(r"^\| `([A-Z_]+)", page, re.MULTILINE)
    assert "SIFA_WITH_CUDA" in variables
    for variable in variables:
        assert variable in sources, f"nobody reads {variable}"


# ---- Examples -------------------------------------------------------------------------------------------------------


def test_examples_of_the_op() -> None:
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs/op.md", "python"):
        exec(compile(block, "docs/op.md", "exec"), names)
    assert "message" in names  # the last of them


def test_the_arithmetic_of_kinetics() -> None:
    page = ROOT / "docs/kinetics.md"
    (arithmetic,), (result,) = blocks(page, "python"), blocks(page, "text")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(arithmetic, "docs/kinetics.md", "exec"), {})
    assert printed.getvalue() == result


# ---- Generated tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", document.PAGES)
def test_generated_tables_are_up_to_date(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    wanted = document.replace_generated(page, document.PAGES[name]())
    assert page == wanted, "python -m tools.document"


def test_every_key_stands_in_the_tables() -> None:
    page = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    for name, value in dict(Config()).items():
        keys = type(value).model_fields if isinstance(value, Section) else {name: None}
        table = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0] if isinstance(value, Section) else page
        for key in keys:
            assert f"\n| `{key}` |" in table, f"{name}.{key}"
    assert "|  |\n" not in page, "a key without a meaning"


def test_every_row_of_the_paper_has_its_command() -> None:
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    files = [file for file in (ROOT / "settings").rglob("*.yml") if has_paper_figure(file)]
    for file in files:
        name = file.relative_to(ROOT / "settings").with_suffix("").as_posix()
        (row,) = re.findall(rf"^\| \[.*\(\.\./settings/{re.escape(name)}\.yml\) \|.*$", page, re.MULTILINE)
        header = " ".join(file.read_text(encoding="utf-8").replace("\\\n#", " ").split())
        weights, clips, crop = re.search(rf"`train {name} (\S+)`<br>`views {name} (\d+) (\d+)`", row).groups()  # type: ignore[union-attr]
        if "--eval" in header:
            assert f"network.pretrained_model={weights}" in header
            assert f"eva_num_clips={clips} evaluation.eva_num_crop=3 evaluation.eva_crop_size={crop}" in header
        assert int(clips) * 3 == int(re.search(r"(\d+) views", row)[1])  # type: ignore[index]
    assert page.count("`train ") == len(files)


def test_the_tool_writes_what_is_out_of_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs/configuration.md"
    page.write_text(f"before\n{document.BEGIN}stale words\n{document.END}after\n", encoding="utf-8")
    monkeypatch.setattr(document, "ROOT", tmp_path)
    monkeypatch.setattr(document, "PAGES", {"docs/configuration.md": schema_tables})
    assert document.main(["--check"]) == 1
    assert "stale words" in page.read_text(encoding="utf-8")
    assert document.main([]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| `ema_decay` | number ≥ 0, < 1 | `0.0` |" in text
    assert "stale words" not in text
    assert document.main(["--check"]) == 0


# ---- Messages -------------------------------------------------------------------------------------------------------


def texts_of(source: Path) -> Iterator[str]:
    """The text constants of a Python file, those of an f-string with … for its values."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def our_texts() -> str:
    folders = ("common", "cuda_sifa", "models", "datasets", "engine", "sifa")
    sources = [ROOT / "train_val_3d.py", *(file for folder in folders for file in (ROOT / folder).rglob("*.py"))]
    scripts = [(ROOT / name).read_text() for name in ("make.sh", "cuda_sifa/build.sh")]
    return "\n".join([*(text for source in sources for text in texts_of(source)), *scripts])


OURS = [
    message
    for _, message in re.findall(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", (ROOT / "docs/troubleshooting.md").read_text())
    if re.match(r"(error|cuda_sifa|make\.sh): \S", message)
]


@pytest.mark.parametrize("message", OURS)
def test_our_messages_read_so(message: str, our_texts: str) -> None:
    pieces = [piece.strip(" .,()") for piece in re.split(r"…|: |\. ", message)[1:]]
    assert sum(map(len, pieces)) > 10, "there is nothing to look for"
    for piece in pieces:
        assert piece in our_texts, piece


def test_there_are_messages_of_ours() -> None:
    assert len(OURS) >= 20


# ---- Containers and clusters ----------------------------------------------------------------------------------------


def test_the_dockerfile_copies_what_there_is() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [part for line in lines if line.startswith("COPY ") for part in shlex.split(line)[2:-1]]
    assert {"requirements.txt", "make.sh", "cuda_sifa", "."} <= set(copied)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for name in copied:
        assert (ROOT / name).exists(), name
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in ignored), name
    for name in ("data", "output", ".venv", ".git"):
        assert name in ignored


def test_the_dockerfile_has_an_image_for_processors_and_one_for_gpus() -> None:
    text = (ROOT / "Dockerfile").read_text()
    stages = re.split(r"^FROM .* AS ", text, flags=re.MULTILINE)[1:]
    assert [stage.split()[0] for stage in stages] == ["cpu", "cuda"], "the last is built by default"
    for stage, with_cuda in zip(stages, "01", strict=True):
        assert f"RUN SIFA_WITH_CUDA={with_cuda} bash make.sh" in stage
        steps = re.findall(r"^(?:COPY .*|USER .*|WORKDIR .*|CMD .*)$", stage, re.MULTILINE)
        assert steps == re.findall(r"^(?:COPY .*|USER .*|WORKDIR .*|CMD .*)$", stages[0], re.MULTILINE)
        for name in re.findall(r"^ARG (\w+)", stage, re.MULTILINE):
            assert name in (ROOT / "docs/install.md").read_text(), f"docs/install.md does not tell of {name}"


def test_the_devcontainer_builds_the_dockerfile() -> None:
    folder = ROOT / ".devcontainer"
    build = json.loads((folder / "devcontainer.json").read_text())["build"]
    assert (folder / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert (folder / build["context"]).resolve() == ROOT


# A launcher as torchrun is: it passes on a signal to a worker that takes a while to save, and dies of a second one.
LAUNCHER = """#!/usr/bin/env python3
import os, signal, subprocess, sys, time
record = os.environ["RECORD"]
if "worker" in sys.argv:
    def save(number, frame):
        signal.signal(number, signal.SIG_DFL)
        time.sleep(0.3)
        open(record + "/saved", "w").close()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    open(record + "/started", "w").close()
    time.sleep(60)
else:
    with open(record + "/arguments", "w") as file:
        file.write(" ".join(sys.argv[1:]))
    worker = subprocess.Popen([sys.executable, __file__, "worker"])
    signal.signal(signal.SIGTERM, lambda number, frame: worker.send_signal(number))
    sys.exit(1 if worker.wait() else 0)
"""
SRUN = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/bash\nif [[ $1 == show ]]; then printf "n1\\nn2\\n"; else echo "$*" >>"$RECORD/queue"; fi\n'


def descendants(process: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return [*children, *(deeper for child in children for deeper in descendants(child))]


def test_the_slurm_script_saves_and_queues_itself_again(tmp_path: Path) -> None:
    """SLURM's signal reaches all processes of the step; the workers must see one SIGTERM, and have time to save."""
    for name, text in (("torchrun", LAUNCHER), ("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"JOB_ID": "77", "JOB_NODELIST": "n[1-2]", "JOB_NUM_NODES": "2", "GPUS_ON_NODE": "8", "CPUS_PER_TASK": "96"}
    environment = {**os.environ, **{f"SLURM_{name}": value for name, value in slurm.items()}}
    job = subprocess.Popen(
        ["bash", "docs/slurm.sbatch", "settings/demo.yml", "--set", "dataset.format=PACKED"],
        cwd=ROOT,
        env={**environment, "RECORD": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    while not (tmp_path / "started").exists():
        assert job.poll() is None
        time.sleep(0.02)
    for process in descendants(job.pid):
        os.kill(process, signal.SIGUSR1)
    assert job.wait(timeout=30) == 85
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "queue").read_text() == "requeue 77\n"
    arguments = (tmp_path / "arguments").read_text()
    assert "--nnodes=2 --nproc_per_node=8" in arguments
    assert "--rdzv_endpoint=n1:29500" in arguments
    assert "--config_file=settings/demo.yml --resume auto" in arguments
    assert arguments.endswith("--set dataset.format=PACKED")


def test_the_slurm_script_is_the_shells_language() -> None:
    for script in SCRIPTS:
        subprocess.run(["bash", "-n", str(script)], check=True)
    assert SCRIPTS
