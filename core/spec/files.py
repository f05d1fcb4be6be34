"""Specs as people write them: YAML files, ``--set path=value``, plain paths."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode

from core.errors import InvalidRequest, Problem


class _Loader(yaml.SafeLoader):
    """YAML 1.1, in which ``1e-4`` is a number too: PyYAML wants ``1.0e-4``.

    A key that a mapping has twice is refused: YAML would keep the last one and drop the first in silence.
    """

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, Any] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # "<<": its keys may be overridden
                continue
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
    """Plain paths of a local spec as ``file:`` references, relative ones from here.

    A base model or dataset that exists as a path means the path.
    """
    made = dict(spec)
    for name in ("base_model", "model"):
        if name in made:
            made[name] = _as_reference(made[name])
    for name in ("dataset", "source", "corpus", "candidates", "models", "datasets"):
        if name in made:
            made[name] = _source(made[name])
    evaluation = made.get("evaluation")
    if isinstance(evaluation, dict) and isinstance(evaluation.get("datasets"), list):
        made["evaluation"] = {**evaluation, "datasets": [_source(item) for item in evaluation["datasets"]]}
    mine = made.get("mine")
    if isinstance(mine, dict):
        mine = {**mine, **{name: _source(mine[name]) for name in ("model", "corpus") if name in mine}}
        made["mine"] = _changed(mine, ["filters", "cross_encoder", "model"])
    for path in ("loss.guide.model", "filters.cross_encoder.model", "evaluation.rerank.retriever"):
        made = _changed(made, path.split("."))
    return _changed(made, ["rerank", "retriever"])


def _changed(spec: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """With a reference where a path may stand, deep inside."""
    name, *rest = path
    if name not in spec:
        return spec
    if not rest:
        return {**spec, name: _as_reference(spec[name])}
    return {**spec, name: _changed(spec[name], rest)} if isinstance(spec[name], dict) else spec


def _source(value: Any) -> Any:
    if isinstance(value, list):
        return [_source(item) for item in value]
    if isinstance(value, dict) and "ref" in value:
        paths = {name: _as_reference(value[name]) for name in ("ref", "corpus", "run") if name in value}
        return {**value, **paths}
    return _as_reference(value)


def _as_reference(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    path = value.removeprefix("file:")
    if value.startswith("file:") or Path(path).expanduser().exists():
        return f"file:{Path(path).expanduser().absolute()}"
    return value
