"""The commands that the pages print, and what the walk does with each: run it, perhaps changed, or leave it out."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_PROGRAMS = r"python|bash make\.sh|torchrun|sbatch"

#: (what is in the command, why it is not run)
LEFT_OUT = [
    (r"^docker ", "needs a container engine"),
    (r"sbatch|--nnodes|TORCH_DISABLE_SHARE", "needs a cluster; tests/test_docs.py, tests/test_two_nodes.py"),
    (r"(torchrun|sbatch).*k400|kinetics|\$1|^views\(\)|^\}$", "needs Kinetics-400"),
    (r"small_videos|output/letters|data/drawn|motion_study|real_motion", "needs the videos of that study"),
    (r"settings/mine|output/mean", "tests/test_recipes.py follows this recipe"),
    (r"^TORCH=|^g\+\+|^\./run ", "tests/op/test_aotinductor.py"),
    (r"--form fastest", "compiles for minutes"),
    (r"pip download|PIP_NO_INDEX|source \.venv", "makes an environment"),
    (
        r"benchmarks\.|pytest|tests\.|make\.sh (\w+ )?(bench|gpu|compat|wheel|fuzz|attack|test|lint)",
        "a long job of its own",
    ),
    (r"…|predict \.\.\.|tools\.(export|complexity)$|make\.sh *(#|$)|--standalone$|LIST ROOT", "names a command"),
]

#: (what is in the command, what stands there in the walk)
CHANGED = [
    (r"^\.venv/bin/python", "python"),
    (r" +# .*$", ""),
    (r"--nproc_per_node=4", "--nproc_per_node=2"),
    (r"=2 (train_val_3d\.py --config_file=output/my_videos)", r"=1 \1"),  # it has few videos, and a training of one
    (r"--seed N\b", "--seed 1"),
    (r"--last 5", "--last 2"),  # of two epochs
    (r"distributed\.launch (.*NAME\.yml)", r"distributed.launch \1 --then_test"),  # which tools.report needs
    (r"VIDEO_FOLDER", "my_videos --out output/folder"),
    (
        r"dataset\.root_path=https://host/OUT",
        "dataset.root_path=OUT dataset.eva_root_path=OUT dataset.eva_list_file=train.txt",
    ),
    (r"OUT --list train\.txt --format SHARDS", "OUT --list train.txt --classes data/demo/classes.txt --format SHARDS"),
    (r"OUT --list train\.txt \[--labels LABELS\] \[(.*?)\] \[(.*?)\]$", r"PACKS --list train.txt \1 \2"),
    (r"train\.txt OUT --format PACKED", "train.txt PACKS --format PACKED"),
    (r"--checkpoint PATH", "--checkpoint output/demo"),
]


def printed(page: Path) -> list[str]:
    """The commands of a page: lines of blocks of the shell, indented lines, and code in a sentence, in this order."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^ *```bash\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [line.strip() for line in re.findall(rf"^    ((?:{_PROGRAMS})\b.*)$", text, re.MULTILINE)]
    lines += re.findall(rf"(?<!`)`((?:{_PROGRAMS})\b[^`]*)`", text)
    commands = [re.sub(r"\s+", " ", line) for line in lines]
    return [command for command in dict.fromkeys(commands) if command and not command.startswith("#")]


def why_left_out(command: str) -> str:
    """The reason why the walk does not run a command; empty if it runs it."""
    return next((reason for pattern, reason in LEFT_OUT if re.search(pattern, command)), "")


def as_run(command: str, changes: list[tuple[str, str]] = CHANGED) -> str:
    """The command that the walk runs."""
    for pattern, text in changes:
        command = re.sub(pattern, text, command)
    return command


def programs(page: Path) -> list[str]:
    """The blocks of Python of a page, without the indentation of a list."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]
