"""YAML as the settings files use it: safe types, numbers as people write them, and limits against hostile files."""

import re
from typing import Any

import yaml

from common.errors import one_line

MOST_CHARACTERS = 1_000_000
MOST_NODES = 100_000  # after all aliases are expanded
MOST_LEVELS = 50
_NUMBERS = {
    "int": r"[-+]?(0|[1-9][0-9]*)",  # YAML 1.1 would read 010 as 8 and 1:30 as 90
    "float": r"[-+]?(\d+\.\d*|\.\d+|\d+\.?\d*[eE][-+]?\d+|\.\d+[eE][-+]?\d+)|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
_TAG = "tag:yaml.org,2002:"


class YamlError(ValueError):
    """Text that is not valid YAML.

    Attributes:
        line: where, counted from 1; 0 if that is not known.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Safe types alone; a key may stand only once in a mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if key_node.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key_node.value} twice", problem_mark=key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag.removeprefix(_TAG) not in ("int", "float", "timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, _pattern in _NUMBERS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^({_pattern})$"), list("-+0123456789."))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Nothing in it is executed.

    Raises:
        YamlError: the text is not valid, or exceeds the limits.
    """
    try:
        _check_limits(text)
        return yaml.load(text, _Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        hint = "; a text that begins with * stands in quotes" if "alias" in (error.context or "") else ""
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise YamlError(f"{one_line(error.problem)}{hint}", line) from None
    except YamlError:
        raise
    except RecursionError:
        raise YamlError(f"it has more than {MOST_LEVELS} levels") from None
    except Exception as error:  # explicit tags, such as !!bool abc, make PyYAML fail in many ways
        raise YamlError(one_line(f"{error or type(error).__name__}")) from None


def _check_limits(text: str) -> None:
    """Reads the text without building values: aliases of aliases can stand for more nodes than there is memory."""
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f"it has more than {MOST_CHARACTERS:,} characters")
    sizes: dict[str, int] = {}  # of the complete nodes that have an anchor
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and nodes before it
    nodes = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise YamlError(f"the value of &{event.anchor} contains itself", event.start_mark.line + 1)
            nodes += sizes.get(event.anchor, 0)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, nodes))
            nodes += 1
            if len(open_nodes) > MOST_LEVELS:
                raise YamlError(f"it has more than {MOST_LEVELS} levels", event.start_mark.line + 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                sizes[event.anchor] = 1
        if nodes > MOST_NODES:
            raise YamlError(f"its aliases stand for more than {MOST_NODES:,} values")
