"""Pipelines: named stages, each the spec of a job, which refer to each other as ``stage:NAME/OUTPUT``.

A pipeline is posted as a whole and becomes jobs: every stage gets the id of its job, and every reference to a
stage becomes one to that job's output. So no other part of the service knows stages.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from core.errors import InvalidRequest, Problem
from core.spec.job import JobName, JobSpec, Labels
from core.spec.parse import KINDS, SPEC_BY_KIND, AnyJobSpec, AnySpec, problems_of, validate_spec
from core.spec.parts.base import Strict
from core.spec.parts.options import Promote
from core.spec.parts.reference_places import FoundReference, find_references, replace_references
from core.spec.pipelines.recipe_facts import RecipeInputs, RecipeName
from core.spec.pipelines.schedule import CronSchedule

MOST_STAGES = 500

STAGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

_STAGE = re.compile(r"stage:(?P<stage>[^/]*)(/(?P<output>.*))?", re.DOTALL)

StageName = Annotated[str, Field(pattern=STAGE_NAME)]


class _AsJobSpec:
    """For a field that takes any mapping: its JSON Schema is that of job specs.

    They are validated when references to stages have become references to jobs.
    """

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(TypeAdapter(AnyJobSpec).core_schema)


_MOST_DAYS = 3660


def _written(value: Any) -> Any:
    """A number would be read as seconds since 1970, and milliseconds if it is large."""
    if not isinstance(value, datetime) and not (isinstance(value, str) and "-" in value[1:]):
        raise ValueError("must be a date and a time with a zone, such as 2027-01-31T03:00:00+01:00")
    return value


def _near(value: datetime) -> datetime:
    """In UTC, and within what every database can hold."""
    if not -_MOST_DAYS <= (value - datetime.now(UTC)).days <= _MOST_DAYS:
        raise ValueError("must be within ten years")
    return value.astimezone(UTC)


class PipelineSpec(Strict):
    """Jobs that are created together and depend on each other."""

    name: JobName | None = None
    labels: Labels = Field(default_factory=dict, description="Labels of the pipeline and of all its jobs.")
    reuse: bool = Field(
        True,
        description="Whether a stage takes the outputs of an earlier job that had the same spec (without "
        "names), the same content of all inputs, the same code, libraries and device. false: every stage "
        "runs.",
    )
    not_before: Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_near)] | None = Field(
        None,
        description="Moment before which no stage starts, with a time zone: 2027-01-31T03:00:00+01:00.",
    )
    schedule: CronSchedule | None = Field(
        None,
        description="Submit the pipeline again and again: a cron expression, or {cron, timezone}. References "
        "such as dataset:NAME are resolved anew each time.",
    )
    promote: Promote | None = Field(
        None,
        description="Which trained model becomes a version of its name, and NAME@current: one that is "
        "significantly better than the baseline of the comparison (if_better), or not significantly worse "
        "(if_not_worse). Sets promote of the evaluate stage with publish_best.",
    )
    recipe: RecipeName | None = Field(
        None, description="Instead of stages: the recipe that makes them from inputs. See GET /recipes."
    )
    inputs: RecipeInputs | None = None
    stages: dict[StageName, Annotated[dict[str, Any], _AsJobSpec()]] = Field(
        default_factory=dict,
        max_length=MOST_STAGES,
        description="The job spec of each stage, by its name. A reference stage:NAME/OUTPUT names an output "
        "of another stage; depends_on may contain stage:NAME.",
        examples=[
            {
                "prepare": {"kind": "prepare", "source": "dataset:docs", "task": "triplets"},
                "train": {
                    "kind": "train",
                    "base_model": "sentence-transformers/all-MiniLM-L6-v2",
                    "dataset": "stage:prepare/dataset",
                },
            }
        ],
    )

    @model_validator(mode="after")
    def _one_of_two(self) -> "PipelineSpec":
        if (self.recipe is None) != ("stages" in self.model_fields_set) or not (self.recipe or self.stages):
            raise ValueError("give either stages or a recipe")
        if (self.recipe is None) != (self.inputs is None):
            raise ValueError("recipe and inputs belong together")
        if self.schedule is not None and self.not_before is not None:
            raise ValueError("schedule says when each run starts: leave not_before out")
        return self


@dataclass(frozen=True)
class Stage:
    """A stage as a job. What it needs stands in its spec: as references to jobs, and in ``depends_on``."""

    name: str
    job_id: str
    spec: AnySpec


def with_promotion(pipeline: PipelineSpec) -> PipelineSpec:
    """The pipeline whose comparing stage says what is promoted, where the pipeline says it.

    Raises `InvalidRequest` unless there is one such stage, with a name.
    """
    if pipeline.promote is None:
        return pipeline
    choosing = [
        name
        for name, spec in pipeline.stages.items()
        if spec.get("kind") == "evaluate" and spec.get("publish_best") is True
    ]
    if len(choosing) != 1:
        told = "needs one evaluate stage with publish_best: true, whose output model is promoted"
        raise _refusal([Problem("promote", f"{told}; there are {len(choosing)}")])
    [name] = choosing
    stage = pipeline.stages[name]
    if not stage.get("name"):
        told = "promote needs a name, of which the model becomes a version"
        raise _refusal([Problem(_path(name, "name"), told)])
    spec = {**stage, "promote": stage.get("promote") or pipeline.promote}
    return pipeline.model_copy(update={"stages": {**pipeline.stages, name: spec}})


def plan_stages(pipeline: PipelineSpec, new_ids: Callable[[int], list[str]]) -> list[Stage]:
    """The stages as jobs, each after those that it needs. ``new_ids`` makes ids of jobs, in rising order.

    Raises `InvalidRequest` with one problem for each fault, with its path (``stages.NAME.FIELD``).
    """
    problems: list[Problem] = []
    needs = {name: _needs(name, pipeline, problems) for name in pipeline.stages}
    _check_acyclic(needs, problems)
    if problems:
        raise _refusal(problems)
    ordered = list(TopologicalSorter(needs).static_order())
    job_ids = dict(zip(ordered, new_ids(len(ordered)), strict=True))
    stages = []
    for name in ordered:
        try:
            spec = validate_spec(_with_labels(_with_jobs(pipeline.stages[name], job_ids), pipeline.labels))
        except ValidationError as error:
            problems += [Problem(_path(name, found.path), found.message) for found in problems_of(error)]
            continue
        stages.append(Stage(name, job_ids[name], spec))
    if problems:
        raise _refusal(problems)
    return stages


def _path(stage: str, path: str) -> str:
    return f"stages.{stage}.{path}" if path else f"stages.{stage}"


def _refusal(problems: list[Problem]) -> InvalidRequest:
    first, more = problems[0], len(problems) - 1
    tail = f" (and {more} more)" if more else ""
    return InvalidRequest(f"The pipeline does not validate: {first.path}: {first.message}{tail}", problems)


def _needs(name: str, pipeline: PipelineSpec, problems: list[Problem]) -> list[str]:
    """The stages that a stage needs, each once. What is wrong with its references goes to ``problems``."""
    spec = pipeline.stages[name]
    model = SPEC_BY_KIND.get(str(spec.get("kind")))
    if model is None:
        problems.append(Problem(_path(name, "kind"), f"must be one of {', '.join(KINDS)}"))
        return []
    found = dict[str, None]()
    for reference in _stage_references(spec, model):
        match = _STAGE.fullmatch(reference.text)
        assert match is not None
        try:
            found[_check(match["stage"], match["output"], reference, pipeline)] = None
        except ValueError as error:
            problems.append(Problem(_path(name, reference.path), str(error)))
    for number, text in enumerate(_dependencies(spec)):
        if (match := _STAGE.fullmatch(text)) is None:
            continue
        if match["output"] is not None:
            problems.append(
                Problem(_path(name, f"depends_on.{number}"), "must be stage:NAME, without an output")
            )
        elif match["stage"] not in pipeline.stages:
            problems.append(
                Problem(_path(name, f"depends_on.{number}"), _unknown_stage(match["stage"], pipeline))
            )
        else:
            found[match["stage"]] = None
    return list(found)


def _dependencies(spec: Mapping[str, Any]) -> list[str]:
    """What ``depends_on`` of an unvalidated spec names."""
    named = spec.get("depends_on")
    return [text for text in named if isinstance(text, str)] if isinstance(named, list) else []


def _stage_references(spec: Mapping[str, Any], model: type[JobSpec]) -> Iterator[FoundReference]:
    for reference in find_references(spec, model.REFERENCES):
        if reference.text.startswith("stage:"):
            yield reference


def _check(stage: str, output: str | None, reference: FoundReference, pipeline: PipelineSpec) -> str:
    """The stage's name. Raises `ValueError` with a sentence where it cannot be meant."""
    if output is None:
        raise ValueError(f"{reference.text!r} must have the form stage:NAME/OUTPUT")
    if stage not in pipeline.stages:
        raise ValueError(_unknown_stage(stage, pipeline))
    model = SPEC_BY_KIND.get(str(pipeline.stages[stage].get("kind")))
    if model is None:
        return stage  # that stage has a problem of its own
    outputs = model.outputs_of(pipeline.stages[stage])
    if output not in outputs:
        raise ValueError(f"stage {stage!r} has no output {output!r}; it has {', '.join(outputs)}")
    if outputs[output] != reference.role:
        raise ValueError(f"output {output!r} cannot be used here: a {reference.role} is needed")
    return stage


def _unknown_stage(stage: str, pipeline: PipelineSpec) -> str:
    near = difflib.get_close_matches(stage, pipeline.stages, 1)
    return f"there is no stage {stage!r}" + (f"; did you mean {near[0]}?" if near else "")


def _check_acyclic(needs: Mapping[str, list[str]], problems: list[Problem]) -> None:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        # graphlib gives the cycle from what is needed to who needs it, and its first member twice.
        cycle = [str(name) for name in reversed(error.args[1][1:])]
        first = cycle.index(next(name for name in needs if name in cycle))
        cycle = [*cycle[first:], *cycle[:first], cycle[first]]
        problems.append(Problem(_path(cycle[0], ""), f"depends on itself: {' needs '.join(cycle)}"))


def _with_labels(spec: dict[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    """A copy of an unvalidated spec with the pipeline's labels beside its own."""
    own = spec.get("labels", {})
    return {**spec, "labels": {**labels, **own}} if isinstance(own, dict) else spec


def _with_jobs(spec: dict[str, Any], job_ids: Mapping[str, str]) -> dict[str, Any]:
    """A copy of an unvalidated spec in which jobs stand for stages."""

    def job_of(text: str) -> str:
        match = _STAGE.fullmatch(text)
        if match is None:
            return text
        return f"job:{job_ids[match['stage']]}" + (f"/{match['output']}" if match["output"] else "")

    spec = replace_references(spec, SPEC_BY_KIND[spec["kind"]].REFERENCES, job_of)
    if any(text.startswith("stage:") for text in _dependencies(spec)):
        parents = [
            job_of(item).removeprefix("job:") if isinstance(item, str) else item
            for item in spec["depends_on"]
        ]
        spec = {**spec, "depends_on": parents}
    return spec
