"""The schema's keys as tables in Markdown, for docs/configuration.md."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from engine.schema import Config

Row = tuple[str, str, str, str]  # key, value, default, meaning

_LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_WORDS = {"string": "text", "boolean": "true, false", "null": "null"}
_PLURALS = {"integer": "integers", "number": "numbers", "string": "texts"}


def schema_tables() -> str:
    """A table of keys for each section of the schema, headed by the section's docstring."""
    schema = Config.model_json_schema()
    top = {key: value for key, value in schema["properties"].items() if "$ref" not in value}
    parts = ["## Without a section\n", _table(_rows(top, schema))]
    for section, value in schema["properties"].items():
        if "$ref" in value:
            described = _resolve(value, schema)
            parts.append(f"## {section}\n")
            if "description" in described:
                parts.append(described["description"] + "\n")
            parts.append(_table(_rows(described["properties"], schema)))
    return "\n".join(parts)


def _table(rows: Iterable[Row]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _rows(properties: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[Row]:
    """A row for each key, and for the keys of a section within a section, whose name is the prefix."""
    for key, value in properties.items():
        yield f"`{prefix}{key}`", _allowed(value), _default(value["default"]), value.get("description", "")
        for option in value.get("anyOf", []):
            if "$ref" in option:
                yield from _rows(_resolve(option, schema)["properties"], schema, f"{prefix}{key}.")


def _resolve(value: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][value["$ref"].rpartition("/")[2]]


def _default(value: Any) -> str:
    text = json.dumps(value)
    return f"`{text.replace('e-0', 'e-') if isinstance(value, float) else text}`"


def _allowed(value: dict[str, Any]) -> str:
    """The allowed values of a key in words, from its JSON schema."""
    if "anyOf" in value:
        return " or ".join(_allowed(option) for option in value["anyOf"])
    if "$ref" in value:
        return "the keys below"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    kind = value["type"]
    if kind == "array":
        count = f"{value['minItems']} " if value.get("minItems") else ""
        items = value["items"]
        return f"list of {count}" + (f"some of {_allowed(items)}" if "enum" in items else _PLURALS[items["type"]])
    if kind == "object":
        return f"patterns, each with a {_allowed(value['additionalProperties'])}"
    limits = [f"{sign} {value[name]:.12g}" for name, sign in _LIMITS.items() if name in value]
    word = _WORDS.get(kind, kind)
    return ", ".join([f"{word} {limits[0]}", *limits[1:]] if limits else [word])
