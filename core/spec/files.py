"""Specs as people write them: YAML files, ``--set path=value``, plain paths."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode

from core.errors import InvalidRequest, Problem
from core.spec.parse import SPEC_BY_KIND
from core.spec.parts.reference_places import replace_references


class _Loader(yaml.SafeLoader):
    """YAML 1.1, in which ``1e-4`` is a number too: PyYAML wants ``1.0e-4``.

    A key that a mapping has twice is refused: YAML would keep the last one and drop the first in silence.
    A key is a text, also one that reads ``on``, ``off``, ``yes`` or ``no``.
    """

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, Any] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # "<<": its keys may be overridden
                continue
            if key_node.tag == "tag:yaml.org,2002:bool":
                key_node.tag = "tag:yaml.org,2002:str"
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # the library's own error
            if key in seen:
                line, first = key_node.start_mark.line + 1, seen[key].line + 1
                raise ConstructorError(
                    None,
                    None,
                    f"duplicate key {key!r} on line {line}, first on line {first}",
                    key_node.start_mark,
                )
            seen[key] = key_node.start_mark
        return super().construct_mapping(node, deep)


# Dates stay texts: JSON has no others.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in known if tag != "tag:yaml.org,2002:timestamp"]
    for first, known in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+\Z"), list("-+0123456789")
)


def load_yaml(text: str) -> Any:
    """The value of a YAML text. Raises `yaml.YAMLError`."""
    return yaml.load(text, _Loader)  # noqa: S506 - derived from the safe one


def read_spec(path: Path) -> dict[str, Any]:
    """A YAML or JSON file as a mapping. Keys of its top level that begin with ``x-`` are left out: they hold
    anchors for the others. Raises `InvalidRequest`, also for a key that a mapping has twice.
    """
    try:
        data = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidRequest(f"File not found: {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidRequest(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InvalidRequest(f"{path} must contain one mapping at the top level, as the files in configs/ do")
    return {key: value for key, value in data.items() if not str(key).startswith("x-")}


def apply_settings(spec: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """``["loss.temperature=0.02", ...]`` written into the spec; values are YAML. Raises `InvalidRequest`."""
    for setting in settings:
        path, equals, value = setting.partition("=")
        if not equals or not path:
            raise InvalidRequest(
                f"--set {setting}: the form is path=value", [Problem(setting, "not path=value")]
            )
        *parents, last = path.split(".")
        target: Any = spec
        for part in [*parents, last][:-1]:
            target = _child(target, part, setting)
        try:
            parsed = load_yaml(value)
            target[int(last) if isinstance(target, list) else last] = parsed
        except (yaml.YAMLError, ValueError, IndexError, TypeError) as error:
            raise InvalidRequest(f"--set {setting}: {error}") from error
    return spec


def _child(target: Any, part: str, setting: str) -> Any:
    if isinstance(target, list):
        if part.isdecimal() and int(part) < len(target):
            return target[int(part)]
    elif isinstance(target, dict):
        if target.get(part) is None:
            target[part] = {}
        return target[part]
    raise InvalidRequest(f"--set {setting}: {part!r} does not exist in the spec")


def localize(spec: dict[str, Any]) -> dict[str, Any]:
    """A spec as somebody wrote it, with its references as `local_reference` makes them; as it is where its
    kind is none."""
    model = SPEC_BY_KIND.get(str(spec.get("kind")))
    return replace_references(spec, model.REFERENCES, local_reference) if model else spec


def local_reference(text: str) -> str:
    """A ``file:`` reference with an absolute path, for such a reference and for a path that exists.

    A model or dataset whose name exists as a path means the path. Other texts are returned as they are.
    """
    path = text.removeprefix("file:")
    if text.startswith("file:") or Path(path).expanduser().exists():
        return f"file:{Path(path).expanduser().absolute()}"
    return text
