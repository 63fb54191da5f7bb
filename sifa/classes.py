"""Class names of a configuration, its lists and a checkpoint: one number must mean one class everywhere."""

import logging
from pathlib import Path
from typing import Any

from datasets.annotations import read_classes
from engine.checkpoint import CheckpointError, class_names_of
from engine.config import ConfigError
from engine.distributed import is_main
from engine.eval_loop import VideoViews
from engine.schema import Config

log = logging.getLogger("sifa")

NEXT_TO_A_LIST = "classes.txt"  # where tools.extract_frames writes the names that a list was made with


def class_names(config: Config) -> list[str]:
    """The names of the classes, or none where the configuration names no class file.

    Raises:
        ConfigError: there is no such file, or it does not fit dataset.num_classes; or the training list and the
            validation list were made with different class files.
    """
    file, wanted = config.dataset.classes_file, config.dataset.num_classes
    if file and not Path(file).is_file():
        raise ConfigError(f"dataset.classes_file: there is no file {file}")
    names = read_classes(file) if file else []
    if names and len(names) != wanted:
        raise ConfigError(f"dataset.classes_file {file} names {len(names)} classes, dataset.num_classes is {wanted}")
    _check_lists(config)
    return names


def _check_lists(config: Config) -> None:
    """Compares the class files next to the two lists, if both have one."""
    files = [
        Path(list_file).parent / NEXT_TO_A_LIST
        for list_file in (config.dataset.list_file, config.dataset.eva_list_file)
        if list_file
    ]
    found = [(file, read_classes(file)) for file in files if file.is_file()]
    if len(found) == 2 and found[0][1] != found[1][1]:
        (one, ours), (other, theirs) = found
        line = _first_difference(ours, theirs) + 1
        raise ConfigError(
            f"the lists have different classes: {one} and {other} differ from line {line} on; make both lists with the "
            "same --classes file"
        )


def align_classes(data: VideoViews, names: list[str], contents: dict[str, Any], checkpoint: Path) -> list[str]:
    """Lets the labels of a validation set mean the classes of a checkpoint.

    Args:
        data: its labels are numbers of `names`; if the checkpoint has the same classes in another order, the labels are
            replaced by the checkpoint's.
        names: of the configuration, or none.
        contents: of the checkpoint.
        checkpoint: for messages.

    Returns:
        The names in the order of the network's outputs.

    Raises:
        CheckpointError: it has other classes.
    """
    theirs = class_names_of(contents, checkpoint, len(names)) if names else []
    if not theirs or names == theirs:
        return names
    if sorted(names) != sorted(theirs):
        raise _other_classes(checkpoint, names, theirs)
    if is_main():
        log.warning(f"the classes of checkpoint {checkpoint} are in another order: labels are matched by name")
    data.relabel([theirs.index(name) for name in names])
    return list(theirs)


def check_same_classes(names: list[str], contents: dict[str, Any], checkpoint: Path) -> None:
    """Raises CheckpointError unless a training has the classes, in their order, of a checkpoint that it starts from."""
    theirs = class_names_of(contents, checkpoint, len(names)) if names else []
    if theirs and names != theirs:
        raise _other_classes(checkpoint, names, theirs)


def _other_classes(checkpoint: Path, names: list[str], theirs: list[str]) -> CheckpointError:
    number = _first_difference(names, theirs)
    there, here = ("none" if number >= len(some) else repr(some[number]) for some in (theirs, names))
    return CheckpointError(
        f"checkpoint {checkpoint} has other classes: number {number} is {there} there and {here} in "
        f"dataset.classes_file; network.pretrained_model={checkpoint} starts from it with a new classifier"
    )


def _first_difference(one: list[str], other: list[str]) -> int:
    """The first place where two lists differ."""
    return next(i for i in range(max(len(one), len(other))) if one[i : i + 1] != other[i : i + 1])
