"""The map of the house: who may import whom, no circle, and every module can be the first that is imported."""

import os
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from sifa.documents.import_graph import ARROWS, EXCEPTIONS, find_modules, import_graph, imported_names

ROOT = Path(__file__).parents[1]
STANDARD_LIBRARY_ALONE = {"common"}
MODULES = find_modules(ROOT)
GRAPH = import_graph(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_follow_the_arrows(name: str) -> None:
    room = name.partition(".")[0]
    allowed = {room} | ARROWS[room] | EXCEPTIONS.get(name, set())
    for target in GRAPH[name]:
        assert target.partition(".")[0] in allowed, f"{name} imports {target}"
    if room in STANDARD_LIBRARY_ALONE:
        for target in imported_names(name, MODULES[name]):
            top = target.partition(".")[0]
            assert top == room or top in sys.stdlib_module_names, f"{name} imports {target}"


def _circle(graph: dict[str, set[str]]) -> list[str]:
    # A module imports the packages above it; `from package import module` does not import what the package exports.
    try:
        TopologicalSorter({n: {t for t in ts if not n.startswith(f"{t}.")} for n, ts in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_there_is_no_circle() -> None:
    assert _circle(GRAPH) == []


def test_a_circle_inside_a_function_is_found(tmp_path: Path) -> None:
    for room in ARROWS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").touch()
    (tmp_path / "engine/a.py").write_text("from engine import b\n")
    (tmp_path / "engine/b.py").write_text("def f():\n    from .a import g\n")
    graph = import_graph(find_modules(tmp_path))
    assert graph["engine.b"] == {"engine.a"}
    assert set(_circle(graph)) == {"engine.a", "engine.b"}


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
