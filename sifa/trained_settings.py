"""Whether an evaluation runs the network that was trained: some settings leave no trace in the weights."""

import logging
from collections.abc import Collection, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import models
from engine.checkpoint import CheckpointError
from engine.config import checkpoint_config
from engine.distributed import is_main
from engine.schema import Config

log = logging.getLogger("sifa")

_SAMPLING = ("dataset.num_segments", "dataset.clip_length", "dataset.num_steps", "evaluation.eva_crop_size")
_TRAINING_ALONE = ("dropout_ratio", "stochastic_depth", "activation_checkpointing")  # they do not change an answer


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
                values[f"SIFA.{inner.name}"] = part if isinstance(part, str) else list(part)
        elif field.name not in (*_TRAINING_ALONE, *models.FIXED_BY_NAME):
            values[f"network.{field.name}"] = value
    return values
