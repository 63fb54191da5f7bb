"""Processes that train together must agree on configuration, lists and versions: they compare them at the start."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import digest
from engine.distributed import all_gather
from engine.schema import Config

# Nodes may keep copies of the data in other places.
_OWN_TO_A_NODE = (
    *("dataset.root_path", "dataset.eva_root_path", "dataset.num_workers"),
    *("dataset.shard_cache", "dataset.shard_cache_gb"),
)
_FILES = ("dataset.list_file", "dataset.eva_list_file", "dataset.classes_file")  # their content counts, not their path
_MOST_NAMED = 3


def check_agreement(config: Config, arguments: dict[str, Any]) -> None:
    """Compares what must be equal in all processes. All of them must call it.

    Args:
        config: of this process.
        arguments: of the command, as far as they must be equal.

    Raises:
        UserError: in all processes, with what differs and on which rank.
    """
    check_equal(dict(_facts(config, arguments)))


def check_equal(facts: dict[str, str]) -> None:
    """Compares what the processes found. All of them must call it.

    Args:
        facts: by name; the same names in all processes.

    Raises:
        UserError: in all processes, with what differs and on which rank.
    """
    everyone: list[dict[str, str]] = all_gather(facts)
    differences = [
        f"{name} is {other.get(name)} on rank {rank}, {first} on rank 0"
        for name, first in everyone[0].items()
        for rank, other in enumerate(everyone)
        if other.get(name) != first
    ]
    if differences:
        more = len(differences) - _MOST_NAMED
        raise UserError(
            "the processes do not agree: "
            + "; ".join(differences[:_MOST_NAMED])
            + (f"; and {more} more differences" if more > 0 else "")
        )


def _facts(config: Config, arguments: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "torch", torch.__version__
    for name, value in arguments.items():
        yield name, str(value)
    for section, values in config.model_dump(mode="json").items():
        keys = values.items() if isinstance(values, dict) else [("", values)]
        for key, value in keys:
            name = f"{section}.{key}".rstrip(".")
            if name in _FILES:
                yield f"the content of {name}", _content(value)
            elif name not in _OWN_TO_A_NODE:
                yield name, json.dumps(value, sort_keys=True)


def _content(file: str) -> str:
    """A short digest; a file that is missing is reported later, by the process that misses it."""
    try:
        return digest(file)[:12] if file and Path(file).is_file() else "none"
    except OSError:
        return "unreadable"
