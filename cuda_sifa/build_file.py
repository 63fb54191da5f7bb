"""Writes build.ninja, from which ninja compiles and links the op.

ninja runs several compilers at once, and only those whose sources, headers or options have changed.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path


def path(name: Path | str) -> str:
    """A path in a build file, where a space and a colon have a meaning."""
    return str(name).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def command(words: Sequence[str | Path]) -> str:
    """A command of a build file, quoted for the shell."""
    return shlex.join(map(str, words)).replace("$", "$$")


def write(
    file: Path,
    sources: Sequence[Path],
    library: Path,
    compilers: dict[str, Sequence[str]],
    options: dict[str, Sequence[str]],
    link: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Writes the build file.

    Args:
        file: build.ninja; the objects go into its folder.
        sources: the C++ and CUDA files.
        library: the file to link.
        compilers: suffix of a source -> the command that compiles it, without input and output.
        options: folder and name of a source -> options for it alone.
        link: the command that links, and the libraries, which follow the objects.
    """
    lines = ["ninja_required_version = 1.3", f"builddir = {path(file.parent)}"]
    for suffix, compiler in compilers.items():
        lines += [f"rule compile{suffix}", "  deps = gcc", "  depfile = $out.d"]
        lines += [f"  command = {command(compiler)} $options -MD -MF $out.d -c $in -o $out"]
    lines += ["rule link", f"  command = {command(link[0])} $in {command(link[1])} -o $out"]
    objects = []
    for source in sources:
        objects.append(file.parent / f"{source.parent.name}_{source.name}.o")
        lines += [f"build {path(objects[-1])}: compile{source.suffix} {path(source)}"]
        lines += [f"  options = {command(options.get(f'{source.parent.name}/{source.name}', []))}"]
    lines += [f"build {path(library)}: link {' '.join(map(path, objects))}"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")
