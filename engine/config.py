"""Configuration: layers of YAML files, checked against engine/schema.py.

A file may name the file it changes (`base: ../base_config/kinetics_base.yml`, relative to itself); `--set` changes
single keys last. Unknown keys, wrong types and impossible values stop the run, naming file and key.
"""

import difflib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from common.errors import UserError, one_line
from engine.checkpoint import CheckpointError, entry
from engine.schema import Config, Optimization, RandAugment, Section
from engine.yaml_text import YamlError, parse_yaml

log = logging.getLogger("sifa")

MOST_BASES = 20  # below a settings file


class ConfigError(UserError):
    """A configuration that cannot be run; the message names file and key."""


Origin = dict[tuple[str, ...], str]  # which file, or --set, gave a key its value


def as_change(key: str, value: Any) -> str:
    """A `section.key=value` for `load_config` and --set, whatever is in the value: the path `a: b # c`, for example.

    Args:
        key: with its section.
        value: a text, a path, or what JSON has.
    """
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    return f"{key}={json.dumps(value, ensure_ascii=False)}"  # JSON is YAML, but for two \u escapes of one character


def load_config(path: str | Path, changes: Sequence[str] = ()) -> Config:
    """Reads a settings file, with the files that it is based on, and applies `section.key=value` changes.

    Raises:
        ConfigError: a file is missing or not YAML, a key is unknown, a value has the wrong type or is impossible.
    """
    values, origin = _read(Path(path), ())
    for change in changes:
        key, equals, text = change.partition("=")
        keys = tuple(key.strip().split("."))
        if not equals or not all(keys):
            raise ConfigError(f"--set takes section.key=value, got {change!r}")
        nested = _parse(text, f"--set {change}")
        for part in reversed(keys):
            nested = {part: nested}
        _lay_over(values, nested, origin, f"--set {change}")
    _name_renamed_keys(values, origin)
    _shorten_warmup(values, origin, str(path))
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_describe(problem, origin, str(path)) for problem in error.errors())) from None
    _name_keys_without_effect(config, origin, str(path))
    config.optimization.allow_unused(_inherited_patterns(config.optimization, origin, str(path)))
    if not config.output_dir:
        config = config.model_copy(update={"output_dir": f"output/{Path(path).stem}"})
    return config


def checkpoint_config(contents: dict[str, Any], path: Path) -> Config:
    """The configuration in a checkpoint.

    Args:
        contents: what was read from it.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: it has none, or one with keys or values that this version does not know.
    """
    try:
        return Config.model_validate(entry(contents, "config", path))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path} is of another version: {one_line(error)}") from None


def dump_config(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError for a loop of links


def _read(path: Path, above: tuple[Path, ...]) -> tuple[dict, Origin]:
    try:
        if _real(path) in above:
            raise ConfigError(f"{path}: is its own base, by way of {', '.join(map(str, above))}")
        if len(above) > MOST_BASES:
            raise ConfigError(f"{above[0]}: there are more than {MOST_BASES} bases below it")
        if path.exists() and not path.is_file():
            raise ConfigError(f"configuration file {path} is not a regular file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"configuration file {path} does not exist") from None
    except (OSError, ValueError) as error:  # names with NUL, text that is not UTF-8
        raise ConfigError(f"configuration file {str(path)!r} cannot be read: {one_line(error)}") from None
    own = _parse(text, str(path))
    own = {} if own is None else own
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: must hold sections with keys, got {type(own).__name__}")
    base = own.pop("base", None)
    values: dict[str, Any] = {}
    origin: Origin = {}
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(f"{path}: base must be the path of a file, got {base!r}")
        values, origin = _read(path.parent / base, (*above, _real(path)))
    _lay_over(values, own, origin, str(path))
    return values, origin


def _parse(text: str, where: str) -> Any:
    try:
        return parse_yaml(text)
    except YamlError as error:
        line = f":{error.line}" if error.line and not where.startswith("--set") else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {error}") from None


def _lay_over(values: dict, changes: dict, origin: Origin, source: str, at: tuple[str, ...] = ()) -> None:
    for key, value in list(changes.items()):  # `values` itself below, where a section is laid over itself
        here = (*at, str(key))
        origin[here] = source
        # Within a section an empty mapping clears the inherited one; an empty section changes nothing.
        if isinstance(value, dict) and isinstance(values.get(key), dict) and (value or not at):
            _lay_over(values[key], value, origin, source, here)
        else:
            values.pop(str(key), None)  # of patterns the last counts: a file's own stand after its base's
            values[str(key)] = value
            if isinstance(value, dict):
                _lay_over(value, dict(value), origin, source, here)


def _describe(problem: Any, origin: Origin, path: str) -> str:
    location = tuple(str(part) for part in problem["loc"])
    known = location
    while known and known not in origin:
        known = known[:-1]
    source, name = origin.get(known, path), ".".join(location)
    if problem["type"] == "extra_forbidden":
        siblings = _keys_at(location[:-1])
        close = difflib.get_close_matches(location[-1], siblings, n=1, cutoff=0.5)
        hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(siblings)}"
        return f"{source}: unknown key {name}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("model_type", "model_attributes_type"):
        message = f"must be a section with the keys {', '.join(_keys_at(location))}"
    if problem["type"] == "string_type" and problem["input"] is None:
        message += """ (an empty one is '""')"""
    message = message[:1].lower() + message[1:]
    got = "" if ", got " in message or isinstance(problem["input"], dict) else f", got {problem['input']!r}"
    return f"{source}: {name}: {message}{got}"


def _name_renamed_keys(values: dict, origin: Origin) -> None:
    for section, field in Config.model_fields.items():
        renamed = getattr(field.annotation, "renamed", {})
        given = values.get(section)
        for old in renamed.keys() & (given.keys() if isinstance(given, dict) else set()):
            source = origin[section, old]
            log.warning(f"{source}: {section}.{old} has a new name, {section}.{renamed[old]}; the old one still works")


def _layer(keys: tuple[str, ...], origin: Origin, path: str) -> int:
    """Where a value is from: 0 the default, 1 a base, 2 the settings file itself, 3 --set."""
    source = origin.get(keys, "")
    return 3 if source.startswith("--set") else 2 if source == path else 1 if source else 0


def _shorten_warmup(values: dict, origin: Origin, path: str) -> None:
    """Fits the warm-up of a default or a base into the epochs that a later file, or --set, asks for."""
    section = values.get("optimization")
    if not isinstance(section, dict):
        return
    epochs, warmup = (section.get(key, Optimization.model_fields[key].default) for key in ("epochs", "warmup_epoch"))
    asked, inherited = (_layer(("optimization", key), origin, path) for key in ("epochs", "warmup_epoch"))
    if type(epochs) is int and type(warmup) is int and 1 <= epochs <= warmup and asked > inherited:
        section["warmup_epoch"] = epochs - 1
        source = origin["optimization", "epochs"]
        log.warning(f"{source}: optimization.warmup_epoch is {epochs - 1}, not {warmup}: there are no more epochs")


def _inherited_patterns(optimization: Optimization, origin: Origin, path: str) -> frozenset[str]:
    """The patterns of parameters' names that were written for another network than this one may be.

    These are patterns of a base, and those of the settings file if --set changes the network.
    """
    changed = any(keys[0] in ("network", "SIFA") and source.startswith("--set") for keys, source in origin.items())
    own = 3 if changed else 2
    multipliers, freeze = (("optimization", key) for key in ("layer_multipliers", "freeze"))
    patterns = [p for p in optimization.layer_multipliers if _layer((*multipliers, p), origin, path) < own]
    return frozenset([*patterns, *(optimization.freeze if _layer(freeze, origin, path) < own else [])])


def _name_keys_without_effect(config: Config, origin: Origin, path: str) -> None:
    """Warns of keys that the settings file itself, or --set, gives and that another key makes meaningless."""
    for name, reason in _without_effect(config):
        source = origin.get(tuple(name.split(".")), "")
        if source == path or source.startswith("--set"):
            log.warning(f"{source}: {name} has no effect: {reason}")


def _without_effect(config: Config) -> Iterator[tuple[str, str]]:
    data, transform, optimization = config.dataset, config.transform, config.optimization
    if config.SIFA.temporal != "sifa":
        for key in ("sifa_kernel", "offset", "offset_init"):
            yield f"SIFA.{key}", f"SIFA.temporal is {config.SIFA.temporal}"
    elif config.SIFA.offset == "regular":
        yield "SIFA.offset_init", "SIFA.offset is regular"
    if "swin" in config.network.net_name:
        for key in ("batch_norm", "precise_bn"):
            yield f"optimization.{key}", "a Swin has no BatchNorm"
    if not optimization.freeze:
        yield "optimization.freeze_epochs", "optimization.freeze names no parameters"
    if optimization.warmup_epoch == 0:
        yield "optimization.warmup_multiplier", "optimization.warmup_epoch is 0"
    if transform.short_side:
        yield "transform.scale", "transform.short_side replaces it"
    if transform.rand_augment:
        yield "transform.color_jitter", "transform.rand_augment replaces it"
    if data.format == "VIDEO":
        for key in ("frame_template", "first_frame"):
            yield f"dataset.{key}", "dataset.format is VIDEO"
    if data.on_bad_sample == "raise":
        yield "dataset.max_bad_fraction", "dataset.on_bad_sample is raise"
    if config.execution.strategy == "fsdp":
        yield "execution.channels_last", "execution.strategy is fsdp"


def _keys_at(location: tuple[str, ...]) -> list[str]:
    section: Any = Config()
    for part in location:
        section = RandAugment() if part == "rand_augment" else getattr(section, part, None)
    return list(type(section).model_fields) if isinstance(section, Section) else []
