"""What a network was trained on, and whether an evaluation runs it as it was trained: the weights do not tell."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import models
from engine.checkpoint import CheckpointError, entry
from engine.config import checkpoint_config
from engine.distributed import is_main
from engine.schema import Config

log = logging.getLogger("sifa")

_SAMPLING = ("dataset.num_segments", "dataset.clip_length", "dataset.num_steps", "evaluation.eva_crop_size")
_TRAINING_ALONE = ("dropout_ratio", "stochastic_depth", "activation_checkpointing")  # they do not change an answer


def describe_data(config: Config) -> str:
    """Name and number of classes of a data set, for instance `drawn moving shapes: 8 classes`."""
    return f"{config.dataset.name or 'data without a name'}: {config.dataset.num_classes} classes"


def trained_on(contents: dict[str, Any], config: Config, checkpoint: Path) -> str:
    """What a checkpoint was trained on, for instance `drawn moving shapes: 8 classes, 800 videos`.

    Args:
        contents: of the checkpoint.
        config: of the checkpoint; it describes the data where an older checkpoint has no entry `trained_on`.
        checkpoint: for messages.

    Raises:
        CheckpointError: the entry is no text.
    """
    return entry(contents, "trained_on", checkpoint) if "trained_on" in contents else describe_data(config)


def check_trained_settings(config: Config, contents: dict[str, Any], checkpoint: Path, asked: Collection[str]) -> None:
    """Compares the settings of an evaluation with those of the training.

    Other clips or crops are logged. Another network is refused, unless the user gave the key on the command line.

    Args:
        config: of the evaluation.
        contents: of the checkpoint.
        checkpoint: for messages.
        asked: keys that the user gave by --set.

    Raises:
        CheckpointError: the network would compute another function than the one that was trained.
    """
    trained = checkpoint_config(contents, checkpoint)
    different = list(_differences(config, trained))
    refused = [text for key, text in different if key not in _SAMPLING and key not in asked]
    if refused:
        raise CheckpointError(
            f"checkpoint {checkpoint} was trained with other settings: {', '.join(refused)}; give the same, or ask for "
            "the others by --set"
        )
    if different and is_main():
        log.warning(f"other settings than in the training: {', '.join(text for _, text in different)}")


def _differences(config: Config, trained: Config) -> Iterator[tuple[str, str]]:
    """(key, `key trained -> now`)."""
    for key in _SAMPLING:
        section, _, name = key.partition(".")
        before, now = (getattr(getattr(one, section), name) for one in (trained, config))
        if before != now:
            yield key, f"{key} {before} -> {now}"
    before, now = _network(trained), _network(config)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            yield key, f"{key} {before.get(key)} -> {now.get(key)}"


def _network(config: Config) -> dict[str, Any]:
    """The options of the network by configuration key, with the defaults that it chooses itself."""
    options = models.choose_options(config.network.net_name, **config.network_options())
    values: dict[str, Any] = {"network.net_name": config.network.net_name}
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "temporal_modelling":
            for inner in fields(value):
                part = getattr(value, inner.name)
                values[f"SIFA.{inner.name}"] = list(part) if isinstance(part, list | tuple) else part
        elif field.name not in (*_TRAINING_ALONE, *models.FIXED_BY_NAME):
            values[f"network.{field.name}"] = value
    return values
