"""References: how a spec names a dataset or a model that lies somewhere else.

``dataset:ID`` and ``model:ID`` (or ``NAME@VERSION``), ``job:ID/OUTPUT``, ``job:ID/checkpoint@STEP`` (or
``@best``, ``@last``), ``file:PATH``,
``hf:REPO[@REV][:CONFIG][/SPLIT]``, ``beir:NAME``, ``nanobeir:NAME``, ``bright:DOMAIN``, ``mteb:TASK``, and
fsspec URLs such as ``s3://bucket/key``. A bare ``org/name``
as a base model means ``hf:org/name``.
"""

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from core.spec.parts.forms import NAME, matches

BENCHMARKS = ("beir", "nanobeir", "bright", "mteb")
"""Schemes of public retrieval sets, which are known by name."""

Scheme = Literal[
    "dataset", "model", "artifact", "job", "file", "hf", "url", "beir", "nanobeir", "bright", "mteb"
]

_JOB = re.compile(
    r"(?P<job>job_[0-9a-z]{1,60})/(?P<output>[A-Za-z0-9_.-]{1,100})(@(?P<revision>[A-Za-z0-9_.-]{0,100}))?"
)
_CHECKPOINT = "checkpoint"
_STEP = r"^(best|last|[0-9]{1,9})$"
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_DATASET = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?)(@(?P<revision>refs/\w+/[\w.-]+|[\w.-]+))?(:(?P<config>[\w.-]+))?(/(?P<split>[\w.-]+))?"
)
_URL = re.compile(r"(s3|gs|gcs|az|abfs|https?)://\S+")


@dataclass(frozen=True)
class Ref:
    """A parsed reference. ``target`` is the path, URL, repository or id; ``output`` belongs to ``job:``,
    ``config`` and ``split`` to a hub's dataset. ``revision`` of a checkpoint is its step, best or last."""

    scheme: Scheme
    target: str
    output: str = ""
    revision: str | None = None
    config: str | None = None
    split: str | None = None

    @property
    def is_checkpoint(self) -> bool:
        """Whether it names a checkpoint of a training."""
        return self.scheme == "job" and self.output == _CHECKPOINT and self.revision is not None

    def __str__(self) -> str:
        if self.scheme == "url":
            return self.target
        tail = f"/{self.output}" if self.scheme == "job" else ""
        revision = f"@{self.revision}" if self.revision else ""
        part = (f":{self.config}" if self.config else "") + (f"/{self.split}" if self.split else "")
        return f"{self.scheme}:{self.target}{tail}{revision}{part}"


def parse_ref(text: str) -> Ref:
    """Parses any reference. Raises `ValueError` with a sentence for what it does not understand."""
    if _URL.fullmatch(text):
        return Ref("url", text)
    scheme, colon, rest = text.partition(":")
    if colon and not rest:
        raise ValueError(f"{text!r} is incomplete: nothing follows the colon")
    match scheme if colon else "":
        case "file":
            return Ref("file", rest)
        case "dataset" | "model" | "artifact":
            return _kept(scheme, rest)
        case "job":
            return _output_of_job(rest, text)
        case "hf":
            return _of_hub(rest, text)
        case "beir" | "nanobeir" | "bright" | "mteb":
            return _benchmark(scheme, rest)
        case "stage":
            raise ValueError(f"{text!r}: stage: references are valid only inside a pipeline")
        case "":
            if _REPO.fullmatch(text) and text.count("/") == 1:
                return Ref("hf", text)
    raise ValueError(
        f"{text!r} is not a reference: write file:PATH, model:ID, dataset:ID, job:ID/OUTPUT, hf:ORG/NAME or s3://..."
    )


def _output_of_job(rest: str, text: str) -> Ref:
    if not (match := _JOB.fullmatch(rest)):
        raise ValueError(f"{text!r} must have the form job:ID/OUTPUT")
    output, revision = match["output"], match["revision"]
    if output == _CHECKPOINT and revision is None:
        raise ValueError(f"{text!r} must say which one: {text}@STEP, {text}@best or {text}@last")
    if output == _CHECKPOINT and not matches(_STEP, revision):
        raise ValueError(f"{text!r}: after @ stands a step, best or last")
    if output != _CHECKPOINT and revision is not None:
        raise ValueError(f"{text!r}: an output of a job has no versions; only checkpoints have an @")
    return Ref("job", match["job"], output=output, revision=revision)


def _kept(scheme: str, rest: str) -> Ref:
    target, _, version = rest.partition("@")
    if len(target) > 200 or not matches(NAME, target):
        raise ValueError(f"{scheme}:{rest}: {target!r} is not a valid id or name of a {scheme}")
    return Ref(scheme, target, revision=version or None)  # type: ignore[arg-type]


def _benchmark(scheme: str, name: str) -> Ref:
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"'{scheme}:{name}' is not a valid dataset name of {scheme}")
    return Ref(scheme, name)  # type: ignore[arg-type]


def _of_hub(rest: str, text: str) -> Ref:
    # ORG/NAME/SPLIT has one slash more than a repository may have; NAME/SPLIT cannot be told apart.
    found = _HUB_DATASET.fullmatch(rest)
    if found is None:
        raise ValueError(
            f"{text!r} is not a hub repository; the form is hf:ORG/NAME[@REVISION][:CONFIG][/SPLIT]"
        )
    return Ref("hf", found["repo"], revision=found["revision"], config=found["config"], split=found["split"])


def _dataset_reference(text: str) -> str:
    ref = parse_ref(text)
    if ref.scheme == "hf" and not text.startswith("hf:"):
        raise ValueError(
            f"{text!r} is not a dataset reference: write file:{text} for a file, or hf:{text} for "
            "a dataset of the hub"
        )
    if ref.scheme == "model" or ref.is_checkpoint:
        raise ValueError(f"{text!r} names a model where a dataset is needed")
    return text


def model_reference(text: str) -> str:
    """The text, if it may name a model. Raises `ValueError`."""
    ref = parse_ref(text)
    if ref.scheme in ("dataset", *BENCHMARKS) or ref.config or ref.split:
        raise ValueError(f"{text!r} names a dataset where a model is needed")
    return text


DatasetReference = Annotated[
    str,
    Field(min_length=1, max_length=4096, examples=["file:data/pairs.jsonl"]),
    AfterValidator(_dataset_reference),
]
ModelReference = Annotated[
    str,
    Field(
        min_length=1, max_length=4096, examples=["sentence-transformers/all-MiniLM-L6-v2", "file:data/model"]
    ),
    AfterValidator(model_reference),
]


_BARE = ("model", "final", "dataset", "best", "checkpoint")
"""Last parts of paths that say nothing by themselves."""


def short_name(reference: str) -> str:
    """What reports call the thing: letters, digits, ``_``, ``.`` and ``-``."""
    target = reference.partition(":")[2] or reference
    parts = [part for part in re.split(r"[/\\]", target) if part not in ("", ".", "..")] or [target]
    name = parts[-1]
    if name in _BARE and len(parts) > 1:
        name = f"{parts[-2]}-{name}"
    stem = re.sub(r"\.(jsonl|json|csv|tsv|parquet|ndjson)(\.gz|\.zst)?$", "", name)
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "unnamed"


def artifact_reference(kind: str, artifact_id: str) -> str:
    """How an artifact is named: as a model or dataset where it is one."""
    return f"{kind if kind in ('model', 'dataset') else 'artifact'}:{artifact_id}"


def has_scheme(text: str) -> bool:
    """Whether a text begins as a reference with a scheme does, and is no path and no ORG/NAME."""
    return re.match(r"[a-z0-9]+:", text) is not None


def free_name(name: str, taken: Container[str]) -> str:
    """The name, or with a number behind it when it is taken."""
    number, free = 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
