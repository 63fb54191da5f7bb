"""The values of a configuration by `section.key`, to compare those of two runs."""

from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from engine.config import dump_config
from engine.schema import Config


def read_settings(config: Path) -> dict[str, Any]:
    """The values of a config.yml by `section.key`. A key that did not exist when it was written has its default.

    Raises:
        UserError: it is not YAML.
    """
    try:
        return default_settings() | flat_settings(yaml.safe_load(config.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{config} is not valid YAML") from None


def default_settings() -> dict[str, Any]:
    """The default of each key by `section.key`."""
    return flat_settings(yaml.safe_load(dump_config(Config())))


def flat_settings(values: Any) -> dict[str, Any]:
    """The values of a configuration with sections by `section.key`."""
    sections = values.items() if isinstance(values, dict) else ()
    flat = {name: value for name, value in sections if not isinstance(value, dict)}
    return flat | {f"{n}.{key}": one for n, value in sections if isinstance(value, dict) for key, one in value.items()}
