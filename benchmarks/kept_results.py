"""The results file of a study: written after each network, so that the same command continues."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from common.errors import UserError
from common.files import write_text

_FILE = "results.json"


def read_results(
    folder: Path, settings: dict[str, Any], *, defaults: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The results of an earlier start, or empty ones.

    Args:
        folder: of results.json.
        settings: that the results are made with; another version of PyTorch is no other setting.
        defaults: of settings that did not exist when the results were made.

    Raises:
        UserError: the results were made with other settings.
    """
    settings = json.loads(json.dumps(settings))  # as they are read again: tuples become lists
    file = folder / _FILE
    if not file.is_file():
        return {"settings": settings, "videos": {}, "chosen": {}, "cells": []}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    results["settings"] = {**{key: defaults[key] for key in settings if key in defaults}, **results["settings"]}
    different = [key for key in settings if key != "torch" and results["settings"].get(key) != settings[key]]
    if different:
        old, new = ({key: side.get(key) for key in different} for side in (results["settings"], settings))
        raise UserError(f"{file} was made with {old}, now it is {new}: give --out another folder, or the same settings")
    return results


def keep_videos(results: dict[str, Any], split: str, described: dict[str, Any]) -> None:
    """Adds what a split is tested on, in the order of the answers.

    Raises:
        UserError: the answers that are kept are of other videos.
    """
    if results["videos"].setdefault(split, described) != described:
        raise UserError(f"the answers that are kept for {split} are of other videos: give --out another folder")


def write_results(folder: Path, results: dict[str, Any]) -> None:
    write_text(folder / _FILE, json.dumps(results) + "\n")
