"""The prompts that a model brings with it: put in front of texts by their role, unless the spec says others.

Models are trained with them (E5, Qwen3-Embedding, EmbeddingGemma), and without them their vectors are others.
They fill the spec before anything runs, so that keys, reports and stored vectors name what was used.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from core.errors import BadModel
from core.models.description import CONFIG, Description, read_json
from core.runtime.context import RunContext
from core.spec import AnySpec
from core.spec.parts.models import Prompts

_NAMES: Mapping[str, Sequence[str]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""Of prompts by role. sentence-transformers looks for the same names, but finds an empty ``document`` of its
own in every model, and so never a ``passage``."""

_Asked = TypeVar("_Asked")


def own_prompts(described: Description) -> Prompts:
    """What the model wants in front of queries and documents; "" where nothing."""
    prompts = described.settings.get("prompts")
    prompts = prompts if isinstance(prompts, dict) else {}
    usual = prompts.get(described.settings.get("default_prompt_name"))

    def of(role: str) -> str:
        found = next((prompts[name] for name in _NAMES[role] if prompts.get(name)), usual)
        return str(found or "")

    return Prompts(query=of("query"), document=of("document"))


def _of_no_role(described: Description) -> list[str]:
    """Names of prompts that stand before nothing here: of other tasks than retrieval."""
    prompts = described.settings.get("prompts")
    if not isinstance(prompts, dict) or any(own_prompts(described).model_dump().values()):
        return []  # many models have prompts of other tasks beside those of retrieval
    return [str(name) for name, text in prompts.items() if text]


def prompts_of(reference: str, context: RunContext) -> Prompts:
    """Of a bi-encoder or late-interaction model that a spec names without prompts: a guide, a retriever."""
    return _used(Prompts(), reference, context, Description.of(context.model_path(reference)))


def with_own_prompts(spec: AnySpec, context: RunContext) -> AnySpec:
    """The spec with the models' own prompts wherever it says none. Raises `BadModel`.

    An empty text in the spec is a prompt, and means that there is none.
    """
    match spec.kind:
        case "train":
            return _filled(spec, spec.base_model, spec.family, context)
        case "embed" | "mine":
            return _filled(spec, spec.model, spec.family, context)
        case "evaluate":
            models = [_filled(model, model.ref, model.family, context) for model in spec.models]
            return spec.model_copy(update={"models": models})
    return spec


def _filled(asked: _Asked, reference: str, family: str, context: RunContext) -> _Asked:
    said: Any = asked
    if reference == "bm25" or family == "cross_encoder":
        return asked
    described = Description.of(context.model_path(reference))
    if family == "auto" and described.family(reference) == "cross_encoder":
        return asked
    return said.model_copy(update={"prompts": _used(said.prompts, reference, context, described)})


def _used(asked: Prompts, reference: str, context: RunContext, described: Description) -> Prompts:
    """What is put in front, and a notice of it."""
    own = own_prompts(described)
    used, told = {}, []
    for role in _NAMES:
        mine, theirs = getattr(own, role), getattr(asked, role)
        used[role] = (mine or None) if theirs is None else theirs
        if theirs is not None and theirs != mine and mine:
            context.notice(
                f"{reference}: prompts.{role} is {theirs!r} in place of the model's own {mine!r}.", "warning"
            )
        elif mine:
            told.append(f"{role} {mine!r}")
    if unused := _of_no_role(described):
        context.notice(
            f"{reference}: its prompts {', '.join(unused)} are of no role (query, document) and not used.",
            "warning",
        )
    if told:
        context.notice(f"{reference}: the model's own prompts stand before its texts: {', '.join(told)}.")
    if any(used.values()):
        _check_pooling(context.model_path(reference), reference, described)
    return Prompts(**used)


def _check_pooling(folder: Path, reference: str, described: Description) -> None:
    """Raises `BadModel` for a model whose pooling leaves the prompt out (INSTRUCTOR)."""
    for module in described.modules:
        config = read_json(folder / str(module.get("path") or "") / CONFIG)
        if isinstance(config, dict) and config.get("include_prompt") is False:
            raise BadModel(
                f"{reference} leaves its prompt out of the pooling (include_prompt), which is not supported: "
                'say prompts: {query: "", document: ""} to use it without prompts'
            )
