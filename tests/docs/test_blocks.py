"""What the documentation shows is valid: specs, commands, calls and programs."""

import ast
import json
import re
import shlex
from typing import Any

import click
import pytest
import typer
import yaml

from client.cli import _PASSED_ON, app
from client.client import Client
from core.errors import InvalidRequest
from core.ids import new_id, new_ids
from core.spec.files import load_yaml
from core.spec.parse import SPEC_BY_KIND, parse_spec
from core.spec.pipelines.flat import FlatSpec
from core.spec.pipelines.plan import PipelineSpec, plan_stages
from tests.docs.blocks import ROOT, Block, blocks, commands
from tests.specs import MINIMAL

_ID = re.compile(r"\bjob:(?:[A-Z_]*ID\b|job_01k9\.\.\.)")


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_yaml_is_a_spec_or_a_part_of_one(block: Block):
    data = load_yaml(_ID.sub(f"job:{new_id('job')}", block.text))
    assert isinstance(data, dict)
    if "kind" in data:
        parse_spec(data)
    elif "stages" in data or "recipe" in data:
        pipeline = PipelineSpec.model_validate(data)
        plan_stages(pipeline, lambda count: new_ids("job", count))
    elif "dataset_name" in data:
        FlatSpec.model_validate(data)
    else:
        _check_part(data)


def _check_part(data: dict[str, Any]) -> None:
    """It must fit one kind of job."""
    kinds = [kind for kind, model in SPEC_BY_KIND.items() if data.keys() <= model.model_fields.keys()]
    assert kinds, f"no kind of job has the fields {', '.join(data)}"
    problems = []
    for kind in kinds:
        try:
            parse_spec({**MINIMAL[kind], **data})
        except InvalidRequest as error:
            problems.append(f"{kind}: {error}")
        else:
            return
    pytest.fail("; ".join(problems))


@pytest.mark.parametrize(("block", "command"), commands("reason"), ids=str)
def test_commands_have_the_options_that_they_are_shown_with(block: Block, command: str):
    words = shlex.split(command)[1:]
    group = typer.main.get_command(app)
    name = words.pop(0)
    assert name in group.commands, f"{block}: there is no command {name}"
    if name in _PASSED_ON or name == "search":
        return
    found: click.Command = group.commands[name]
    while isinstance(found, click.Group):
        name = words.pop(0)
        assert name in found.commands, f"{block}: there is no command {command}"
        found = found.commands[name]
    with click.Context(found, resilient_parsing=False) as context:
        try:
            found.parse_args(context, list(words))
        except click.UsageError as error:
            pytest.fail(f"{block}: {command}: {error.message}")


@pytest.mark.parametrize(("block", "command"), commands("make"), ids=str)
def test_targets_of_make_exist(block: Block, command: str):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    asked = [word for word in shlex.split(command)[1:] if "=" not in word]
    assert set(asked) <= set(targets), f"{block}: {command}"


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_programs_compile_and_the_client_has_what_they_call(block: Block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "client":
            assert hasattr(Client, node.attr) or node.attr in ("pipelines", "http"), (
                f"{block}: client.{node.attr}"
            )


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_json(block: Block):
    json.loads(block.text)


@pytest.mark.parametrize(("block", "command"), commands("curl"), ids=str)
def test_bodies_of_calls_are_specs(block: Block, command: str):
    words = shlex.split(command)
    url = next(word for word in words if "localhost" in word or "127.0.0.1" in word)
    sent = [words[place + 1] for place, word in enumerate(words) if word in ("-d", "--data")]
    if url.endswith("/jobs") and sent:
        parse_spec(json.loads(sent[0]))
    elif sent:
        json.loads(sent[0])


def test_configs_are_specs():
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        data = {key: value for key, value in load_yaml(path.read_text()).items() if not key.startswith("x-")}
        if "stages" in data or "recipe" in data:
            PipelineSpec.model_validate(data)
        elif "dataset_name" in data:
            FlatSpec.model_validate(data)
        else:
            parse_spec(data)


def test_blocks_of_yaml_have_no_tabs():
    for block in blocks("yaml"):
        assert "\t" not in block.text, block
        yaml.safe_load(block.text)


def test_messages_of_the_page_on_trouble_are_messages_of_the_code():
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sources = [path for name in ("core", "api", "client", "worker") for path in (ROOT / name).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    quoted = re.findall(r"^\| `([^`]+)`", page, re.M)
    assert len(quoted) > 10
    parts = {text: re.split(r"\.\.\.|http://\S+", text) for text in quoted}
    lost = [text for text, found in parts.items() if max(found, key=len).strip(" ()") not in code]
    assert lost == []
