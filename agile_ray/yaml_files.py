"""Reads YAML so that nothing is lost: a key twice is an error, and what must be a text keeps its spelling.

Numbers are those of YAML 1.2: 010 and 1:30 are no octal and sexagesimal numbers, and dates are texts. The caller says
where texts are, by the path of a value: `run.name: 001` is the text "001" if it says that run.name is one.
"""

import re
from collections.abc import Callable, Hashable
from pathlib import Path

import yaml

from agile_ray.errors import ConfigError

Keys = tuple[str, ...]
"""Where a value is in a file: the keys that lead to it. An item of a list has the path of the list."""

_PREFIX = "tag:yaml.org,2002:"
_TEXT = f"{_PREFIX}str"
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$|0x[0-9a-fA-F_]+$")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9_]+(?:[eE][-+]?[0-9]+)?)$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set[object]()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"every key stands once, found {key.value} twice", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].removeprefix(_PREFIX) not in ("int", "float", "timestamp")]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_PREFIX}float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(f"{_PREFIX}int", _INT, list("-+0123456789"))


def read_yaml(path: Path, is_text: Callable[[Keys], bool]) -> object:
    """Read a YAML file.

    Args:
        path: its path; UTF-8, or UTF-16 with a byte-order mark.
        is_text: whether a plain scalar at a path keeps its spelling, unless it means null.

    Raises:
        ConfigError: the file can't be read, is no YAML, or has a key twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the file can't be read ({error.strerror})") from error
    try:
        return parse_yaml(content, is_text)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_yaml(content: str | bytes, is_text: Callable[[Keys], bool], *, at: Keys = ()) -> object:
    """Parse YAML.

    Args:
        content: one document.
        is_text: as in `read_yaml`.
        at: the path of the document itself.

    Raises:
        ValueError: it is no YAML, or has a key twice.
    """
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        _keep_texts(node, is_text, at)
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply, or contains itself") from error


def _keep_texts(node: yaml.Node, is_text: Callable[[Keys], bool], at: Keys) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _keep_texts(value, is_text, (*at, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _keep_texts(item, is_text, at)
    elif node.tag != f"{_PREFIX}null" and is_text(at):
        node.tag = _TEXT
