"""Texts, names, identifiers and numbers: every field of a spec and every parameter of a call has bounds."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from api.app import create_app
from core.errors import InvalidRequest
from core.spec import AnyJobSpec, parse_spec
from core.spec.parts import forms
from core.spec.parts.evaluation import Metric
from core.spec.parts.forms import is_unicode, matches
from core.spec.parts.refs import parse_ref
from core.spec.requests import NewKey
from tests.specs import MINIMAL

BAD_TEXTS = {"NUL": "a\x00b", "surrogate": "a\ud800b", "low surrogate": "\udc80"}
SCHEMAS = {"specs": TypeAdapter(AnyJobSpec).json_schema(), "keys": NewKey.model_json_schema()}


def nodes(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a JSON Schema, by its path."""
    if isinstance(schema, dict):
        yield path, schema
        for name, part in schema.items():
            yield from nodes(part, f"{path}/{name}")
    elif isinstance(schema, list):
        for index, part in enumerate(schema):
            yield from nodes(part, f"{path}/{index}")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_number_has_two_bounds(name: str):
    unbounded = [
        path
        for path, node in nodes(SCHEMAS[name])
        if node.get("type") in ("number", "integer")
        and not (
            node.keys() & {"minimum", "exclusiveMinimum"} and node.keys() & {"maximum", "exclusiveMaximum"}
        )
    ]
    assert unbounded == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_text_has_a_form(name: str):
    loose = [
        path
        for path, node in nodes(SCHEMAS[name])
        if node.get("type") == "string" and not node.keys() & {"pattern", "enum", "const"}
    ]
    assert loose == []


def test_every_parameter_of_a_call_has_a_form_or_bounds(settings):
    loose = []
    for path, operations in create_app(settings).openapi()["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                for where, node in nodes(parameter["schema"]):
                    bounded = {
                        "string": node.keys() & {"pattern", "enum", "const", "$ref"},
                        "integer": "maximum" in node,
                        "number": "maximum" in node,
                    }
                    if not bounded.get(node.get("type", ""), True) and parameter["name"] not in _ANY_TEXT:
                        loose.append(f"{method} {path} {parameter['name']}{where}")
    assert loose == []


_ANY_TEXT = {"Range", "If-Range", "If-None-Match"}
"""Compared with what the file has, and never stored or looked up."""


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
@pytest.mark.parametrize(
    ("kind", "change", "path"),
    [
        ("train", {"name": "{}"}, "name"),
        ("train", {"base_model": "file:{}"}, "base_model"),
        ("train", {"base_model": "model:{}"}, "base_model"),
        ("train", {"base_model": "hf:org/{}"}, "base_model"),
        ("train", {"base_model": "job:job_1/{}"}, "base_model"),
        ("train", {"dataset": "dataset:{}"}, "dataset.ref"),
        ("train", {"dataset": ["file:a", {"ref": "file:b", "name": "{}"}]}, "dataset.1.name"),
        ("train", {"prompts": {"query": "{}"}}, "prompts.query"),
        ("train", {"labels": {"team": "{}"}}, "labels.team"),
        ("train", {"depends_on": ["{}"]}, "depends_on.0"),
        ("train", {"lora": {"target_modules": ["{}"]}}, "lora.target_modules"),
        ("train", {"evaluation": {"datasets": ["file:x"], "metrics": ["{}"]}}, "evaluation.metrics.0"),
        ("train", {"family": "late_interaction", "late_interaction": {"skiplist": ["{}"]}}, "late_inter"),
        ("prepare", {"source": {"ref": "file:x", "columns": {"query": "{}"}}}, "source.columns.query"),
        ("prepare", {"source": {"ref": "file:x", "category": "{}"}}, "source.category"),
        ("prepare", {"source": {"ref": "file:x", "encoding": "{}"}}, "source.encoding"),
        ("prepare", {"licence": "{}"}, "licence"),
        ("mine", {"corpus": ["file:{}"]}, "corpus.0"),
        ("mine", {"candidates": ["job:job_1/x", "file:{}"]}, "candidates.1"),
        ("evaluate", {"models": [{"ref": "bm25", "name": "{}"}]}, "models.0.name"),
        ("evaluate", {"datasets": [{"ref": "file:x", "run": "file:{}"}]}, "datasets.0.run"),
        ("embed", {"texts": ["fine", "{}"]}, "texts.1"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_texts_that_no_database_can_store_are_named_by_their_path(kind, change, path, text):
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: filled(part) for name, part in value.items()}
        if isinstance(value, list):
            return [filled(part) for part in value]
        return value.replace("{}", text) if isinstance(value, str) else value

    with pytest.raises(InvalidRequest) as raised:
        parse_spec({**MINIMAL[kind], **filled(change)})
    assert [found.path for found in raised.value.problems if not found.path.startswith(path)] == []


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())
@pytest.mark.parametrize("where", ["category share", "label", "field"])
def test_names_in_mappings_are_checked_too(where: str, text: str):
    changes: dict[str, dict[str, Any]] = {
        "category share": {"balance": {"shares": {text: 1}}},
        "label": {"labels": {text: "x"}},
        "field": {text: 1},
    }
    with pytest.raises(InvalidRequest):
        parse_spec({**MINIMAL["prepare"], **changes[where]})


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"timeout_seconds": 1e300}, "timeout_seconds"),
        ({"timeout_seconds": 10**400}, "timeout_seconds"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"checkpoint": {"every_seconds": 1e18}}, "checkpoint.every_seconds"),
        ({"checkpoint": {"every_steps": 2**63}}, "checkpoint.every_steps"),
        ({"resources": {"gpu_memory_gb": 1e300}}, "resources.gpu_memory_gb"),
        ({"micro_batch_tokens": 10**30}, "micro_batch_tokens"),
        ({"max_gradient_norm": 1e300}, "max_gradient_norm"),
        ({"sample": 2**63}, "sample"),
        ({"seed": True}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"batch_size": 64.5}, "batch_size"),
        ({"epochs": False}, "epochs"),
        ({"epochs": "2"}, "epochs"),
        ({"dry_run": 1}, "dry_run"),
        ({"dry_run": "yes"}, "dry_run"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:40],
)
def test_numbers_that_overflow_and_values_of_another_type(change, path):
    with pytest.raises(InvalidRequest) as raised:
        parse_spec({**MINIMAL["train"], **change})
    assert {found.path for found in raised.value.problems} == {path}


def test_a_whole_number_may_be_written_with_a_fraction_of_zero():
    spec = parse_spec({**MINIMAL["train"], "batch_size": 32.0, "epochs": 2})
    assert (spec.batch_size, type(spec.batch_size), spec.epochs) == (32, int, 2.0)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (forms.NAME, "a name"),
        (forms.LABEL_KEY, "team"),
        (forms.LABEL, "team:a"),
        (forms.JOB_ID, "job_1"),
        (forms.ARTIFACT_ID, "art_1"),
        (forms.KEY_ID, "key_1"),
        (forms.API_KEY, "key_1.abc"),
        (forms.NUMBER, "12"),
        (forms.KEPT, "a name@3"),
        (forms.PLAIN, "a\nb"),
    ],
)
def test_a_form_is_matched_as_a_whole(form: str, text: str):
    assert matches(form, text)
    assert not matches(form, text + "\x00")
    assert not matches(form, text + "\ud800")
    if form not in (forms.PLAIN, forms.LABEL):
        assert not matches(form, text + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "org/name\n",
        "hf:org/name\n",
        "hf:org/name@v1\n",
        "hf:org/name:config\n",
        "hf:org/name/split\n",
        "job:job_1/model\n",
        "model:name\n",
        "s3://bucket/key\n",
        "beir:scifact\n",
        "dataset:a/b",
        "job:x/y",
    ],
    ids=repr,
)
def test_references_are_matched_as_a_whole(text: str):
    with pytest.raises(ValueError):
        parse_ref(text)


def test_metrics_are_matched_as_a_whole():
    with pytest.raises(ValueError, match="unknown metric"):
        TypeAdapter(Metric).validate_python("ndcg@10\n")


@pytest.mark.parametrize(("text", "whole"), [("ä😀", True), ("\ud83d", False), ("a\udfffb", False)])
def test_unicode(text: str, whole: bool):
    assert is_unicode(text) is whole


def test_yaml_numbers_need_no_decimal_point():
    from core.spec.files import apply_settings, load_yaml

    assert load_yaml("{a: 1e-4, b: 2E3, c: '1e5', d: 1e, e: 12, f: 1.5e-2}") == {
        "a": 1e-4,
        "b": 2000.0,
        "c": "1e5",
        "d": "1e",
        "e": 12,
        "f": 0.015,
    }
    assert apply_settings({}, ["learning_rate=3e-5"]) == {"learning_rate": 3e-5}
