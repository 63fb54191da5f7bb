"""Which module imports which, read from the source, and the picture of the rooms in docs/architecture.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

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
EXCEPTIONS: dict[str, set[str]] = {"engine.schema": {"models", "datasets"}}
BUILD_SCRIPTS = {f"cuda_sifa.{name}" for name in ("setup", "build_backend", "build_file", "toolkit", "glibc")}

Graph = dict[str, set[str]]


def find_modules(root: Path) -> dict[str, Path]:
    """The modules of the product by name.

    Args:
        root: the folder of the project.
    """
    found = {}
    for room in ARROWS:
        files = (root / room).rglob("*.py") if (root / room).is_dir() else [root / f"{room}.py"]
        for file in files:
            parts = file.relative_to(root).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            if "build" not in parts[:-1] and name not in BUILD_SCRIPTS:
                found[name] = file
    return found


def imported_names(name: str, file: Path) -> Iterator[str]:
    """The names that a module imports, also inside functions."""
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def import_graph(modules: dict[str, Path]) -> Graph:
    """Module -> the modules of the product that it imports."""
    graph: Graph = {}
    for name, file in modules.items():
        graph[name] = set()
        for target in imported_names(name, file):
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != name:
                graph[name].add(target)
    return graph


def rooms_picture(root: Path) -> str:
    """The rooms and the imports between them as a Mermaid diagram, without arrows that follow from others."""
    graph = import_graph(find_modules(root))
    rooms: Graph = {room: set() for room in ARROWS}
    exceptions = set()
    for name, targets in graph.items():
        room = name.partition(".")[0]
        for other in {target.partition(".")[0] for target in targets} - {room}:
            if other in EXCEPTIONS.get(name, set()):
                exceptions.add((other, room, name))
            else:
                rooms[room].add(other)
    lines = ["```mermaid", "flowchart LR"]
    for room in ARROWS:
        lines.append(f'    {room}["{room}{".py" if (root / f"{room}.py").is_file() else "/"}"]')
    lines += [f"    {other} --> {room}" for room in ARROWS for other in sorted(_direct(rooms, room))]
    lines += [f'    {other} -. "names for {name}" .-> {room}' for other, room, name in sorted(exceptions)]
    return "\n".join([*lines, "```", ""])


def _direct(rooms: Graph, room: str) -> set[str]:
    """What a room imports, but for what one of these imports as well."""
    return {other for other in rooms[room] if not any(other in _all(rooms, between) for between in rooms[room])}


def _all(rooms: Graph, room: str) -> set[str]:
    return rooms[room].union(*(_all(rooms, other) for other in rooms[room]))
