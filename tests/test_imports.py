"""The map of the house: who may import whom, no circle, and every module can be the first that is imported."""

import ast
import os
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: Package or top-level module -> what it may import; its own modules always.
ARROWS: dict[str, set[str]] = {
    "cuda_sifa": set(),
    "common": set(),
    "models": {"cuda_sifa"},
    "datasets": {"common"},
    "engine": {"common"},
    "visualization": {"common", "cuda_sifa", "models"},
    "sifa": {"common", "cuda_sifa", "models", "datasets", "engine", "visualization"},
    "hubconf": {"models"},
    "train_val_3d": {"common", "models", "engine", "sifa"},
    "tools": {"common", "cuda_sifa", "models", "datasets", "engine", "visualization", "sifa", "train_val_3d"},
}
#: The schema takes the names of variants from the rooms that define them: each list is written once.
EXCEPTIONS = {"engine.schema": {"models", "datasets"}}
STANDARD_LIBRARY_ALONE = {"common"}
SCRIPTS = {"cuda_sifa.setup", "cuda_sifa.build_backend", "cuda_sifa.toolkit"}  # they build the op


def modules() -> dict[str, Path]:
    """The modules of the product by name."""
    found = {}
    for room in ARROWS:
        files = (ROOT / room).rglob("*.py") if (ROOT / room).is_dir() else [ROOT / f"{room}.py"]
        for file in files:
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            if "build" not in file.relative_to(ROOT).parts and name not in SCRIPTS:
                found[name] = file
    return found


def imports(name: str, file: Path) -> Iterator[str]:
    """The names that a module imports, also inside functions."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


MODULES = modules()


def inner_imports(name: str) -> set[str]:
    """The modules of the product that a module imports."""
    found = set()
    for target in imports(name, MODULES[name]):
        while target and target not in MODULES:
            target = target.rpartition(".")[0]
        if target and target != name:
            found.add(target)
    return found


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_arrows(name: str) -> None:
    room = name.partition(".")[0]
    allowed = {room} | ARROWS[room] | EXCEPTIONS.get(name, set())
    for target in inner_imports(name):
        assert target.partition(".")[0] in allowed, f"{name} imports {target}"
    if room in STANDARD_LIBRARY_ALONE:
        for target in imports(name, MODULES[name]):
            top = target.partition(".")[0]
            assert top == room or top in sys.stdlib_module_names, f"{name} imports {target}"


def test_there_is_no_circle() -> None:
    # A module imports the packages above it; `from package import module` does not import what the package exports.
    graph = {name: {t for t in inner_imports(name) if not name.startswith(f"{t}.")} for name in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def test_common_is_three_files() -> None:
    assert {file.stem for file in (ROOT / "common").glob("*.py")} == {"__init__", "errors", "files", "cli"}


def _import_first(name: str) -> int:
    """Imports a module in a copy of this process that has none of the product's modules. Returns its exit code."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            for loaded in [m for m in sys.modules if m.partition(".")[0] in ARROWS and not m.startswith("cuda_sifa")]:
                del sys.modules[loaded]  # the op stays: a library can register its operators once
            __import__(name)
            code = 0
        except BaseException as error:
            print(f"{name}: {error!r}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("cuda_sifa")])
def test_every_module_can_be_imported_first(name: str) -> None:
    assert _import_first(name) == 0
