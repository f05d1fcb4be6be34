"""Recipes over HTTP: what is known of data and workers, the stages that follow from it, and estimates."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from api.estimates import Seen, device_of, estimate_training, find_shape
from api.reading_estimates import estimate_reading
from api.references import find_input
from api.submission import Checker
from core.data.sources.formats import documents_by_name
from core.data.uploads.upload import inspect
from core.errors import BadData, BadModel, NotFound
from core.ids import new_ids
from core.jobs.protocol import ArtifactInput, Input
from core.jobs.views import EstimateView, RecipeView
from core.models.description import Description
from core.spec import EvaluateSpec, Resources, TrainSpec
from core.spec.parse import SPEC_BY_KIND
from core.spec.parts.reference_places import replace_references
from core.spec.parts.refs import BENCHMARKS, parse_ref
from core.spec.pipelines.plan import PipelineSpec, plan_stages
from core.spec.pipelines.recipe_facts import (
    DataFacts,
    Expanded,
    RecipeInputs,
    RecipeName,
    Surroundings,
    refusal,
)
from core.spec.pipelines.recipes import expand, with_base_model
from core.store.artifacts import CURRENT

_LOOKED_AT_BYTES = 256 << 20
"""Files of the server are read by the request up to this size; an upload was read when it was sent."""

_TOKENS = 256
_MOST_TOKENS = 512
"""Of a model that could read more: passages of thousands of characters answer several questions each."""

_ALIVE_SECONDS = 60.0
_JUDGED = ("judged", "retrieval")
"""Formats of uploads that have judgments: found as they are, or made by a prepare job."""

_QUERY_CHARACTERS = 50.0


_RECIPE_OF = {
    "dense": "documents, pairs or gpl",
    "cross_encoder": "reranker",
    "late_interaction": "late_interaction",
}
"""The recipe that a family's base model is for."""

_FAMILIES: dict[RecipeName, set[str]] = {
    "documents": {"dense"},
    "pairs": {"dense"},
    "gpl": {"dense"},
    "reranker": {"cross_encoder"},
    "late_interaction": {"late_interaction", "dense"},
}
"""The families of base models that a recipe can begin with."""


class RecipeBook:
    """Expands recipes for one caller."""

    def __init__(self, checker: Checker) -> None:
        self._checker = checker
        self._found: dict[str, Input | None] = {}

    def expand(self, name: RecipeName, inputs: RecipeInputs) -> Expanded:
        """The stages. Raises `InvalidRequest`, `NotFound` and `Forbidden` for the inputs."""
        inputs = with_base_model(name, inputs)
        known = self._find(inputs.data, "inputs.data")
        if inputs.test is not None:
            test = self._find(inputs.test, "inputs.test")
            if self._facts("pairs", inputs.test, test, "test").kind == "documents":
                raise refusal("test", f"{inputs.test} holds documents: give rows, or queries with judgments")
        if inputs.queries is not None:
            self._find(inputs.queries, "inputs.queries")
        self._check_family(name, inputs)
        return expand(name, inputs, self._facts(name, inputs.data, known), self._surroundings(inputs))

    def view(self, name: RecipeName, inputs: RecipeInputs) -> RecipeView:
        """The stages with their estimates."""
        inputs = with_base_model(name, inputs)
        made = self.expand(name, inputs)
        estimates = self._estimates(made, inputs)
        times = [found.seconds for found in estimates.values()]
        return RecipeView(
            recipe=name,
            inputs=inputs,
            stages=made.stages,
            choices=made.choices,
            estimates=estimates,
            seconds=None if None in times else round(sum(filter(None, times)), 1),
        )

    def _find(self, reference: str, path: str) -> Input | None:
        """What a reference means, looked up once."""
        if reference not in self._found:
            own = self._checker
            self._found[reference] = find_input(reference, path, own.store, own.settings, own.access)
        return self._found[reference]

    def _check_family(self, name: RecipeName, inputs: RecipeInputs) -> None:
        """Raises `InvalidRequest` for a base model whose files name another family than the recipe's."""
        assert inputs.base_model is not None
        known, ref = self._find(inputs.base_model, "inputs.base_model"), parse_ref(inputs.base_model)
        family = None
        if isinstance(known, ArtifactInput) and known.artifact:
            page = self._checker.store.artifacts.get(known.artifact).manifest["metadata"]
            family = page.get("family")
        elif ref.scheme == "file":
            try:
                family = Description.of(Path(ref.target)).family(inputs.base_model)
            except BadModel:  # the first job that loads it will say what is wrong with it
                return
        if family is not None and family not in _FAMILIES[name]:
            told = f"{inputs.base_model} is a {family} model: use the recipe {_RECIPE_OF[family]}"
            raise refusal("base_model", told)

    # -- what is known ---------------------------------------------------------------------------

    def _facts(self, name: RecipeName, reference: str, known: Input | None, field: str = "data") -> DataFacts:
        if isinstance(known, ArtifactInput) and known.artifact:
            return _facts_of_page(self._checker.store.artifacts.get(known.artifact).manifest["metadata"])
        ref = parse_ref(reference)
        if ref.scheme in BENCHMARKS:
            return DataFacts("rows", judged=True)
        if ref.scheme == "file":
            return _facts_of_files(Path(ref.target), field)
        return DataFacts("documents" if name == "documents" else "rows")

    def _surroundings(self, inputs: RecipeInputs) -> Surroundings:
        assert inputs.base_model is not None
        models = {}
        if (known := self._find(inputs.base_model, "inputs.base_model")) is not None:
            models[inputs.base_model] = known
        shape = find_shape(inputs.base_model, models, self._checker.library, [])
        limits = [limit for limit in (shape.set_length, shape.positions) if limit] if shape else [_TOKENS]
        workers = [worker for worker, _ in self._checker.store.workers.alive(_ALIVE_SECONDS)]
        on_gpu = device_of(Resources(), workers) == "cuda"
        return Surroundings(
            min([*limits, _MOST_TOKENS]), "cuda" if on_gpu else "cpu", self._has_current(inputs)
        )

    def _has_current(self, inputs: RecipeInputs) -> bool:
        """Whether a version of the name was promoted, which the caller may see."""
        if inputs.promote is None or inputs.name is None:
            return False
        try:
            self._checker.store.artifacts.find("model", inputs.name, CURRENT, self._checker.access)
        except NotFound:
            return False
        return True

    # -- estimates -------------------------------------------------------------------------------

    def _estimates(self, made: Expanded, inputs: RecipeInputs) -> dict[str, EstimateView]:
        """As if every stage read the data as they are and the base model: those are known now."""
        assert inputs.base_model is not None
        known: dict[str, Input] = {}
        for text, path in ((inputs.data, "inputs.data"), (inputs.base_model, "inputs.base_model")):
            if (found := self._find(text, path)) is not None:
                known[text] = found
        own, estimates = self._checker, {}
        for stage in plan_stages(PipelineSpec(stages=made.stages), partial(new_ids, "job")):
            spec = stage.spec
            if spec.kind == "prepare":
                continue
            stand_ins = {
                found.text: inputs.data for found in spec.find_references() if found.role == "dataset"
            }
            stand_ins |= {
                found.text: inputs.base_model for found in spec.find_references() if found.role == "model"
            }
            data = replace_references(
                spec.model_dump(mode="json"),
                spec.REFERENCES,
                partial(_replaced, stand_ins),
            )
            alike: Any = SPEC_BY_KIND[spec.kind].model_validate(data)
            if isinstance(alike, TrainSpec):
                per_row = 1.0 + made.negatives
                seen = Seen(made.pairs, True, _QUERY_CHARACTERS, made.characters, per_row)
                estimates[stage.name] = estimate_training(alike, known, own.store, own.library, seen)
            else:
                if isinstance(alike, EvaluateSpec):  # the base model stands for both
                    alike.models = alike.models[:1]
                estimates[stage.name] = estimate_reading(alike, known, own.store, own.library)
        return estimates


def _replaced(stand_ins: Mapping[str, str], text: str) -> str:
    """What stands for an output that is not there yet."""
    return stand_ins[text] if text.startswith("job:") else text


def _facts_of_page(page: dict[str, Any]) -> DataFacts:
    """Of an upload, or of what a job has made."""
    splits = {name: rows for name, rows in (page.get("splits") or {}).items() if rows}
    statistics = page.get("statistics") or {}
    lengths = statistics.get("characters", {})
    if "documents" in splits or "chunks" in splits or page.get("type") == "chunks":
        role = "document" if "document" in lengths else "passage"
        mean, queries = lengths.get(role, {}).get("mean", 0.0), statistics.get("possible_queries")
        return DataFacts("documents", sum(splits.values()), mean, queries=queries)
    judged = page.get("type") == "retrieval" or page.get("format") in _JUDGED
    length = lengths.get("positive", {}).get("mean", 0.0)
    return DataFacts("rows", sum(splits.values()), length, splits, judged=judged)


def _facts_of_files(path: Path, field: str) -> DataFacts:
    """Read them once, if they are not too many for a request. Raises `InvalidRequest`."""
    files = [file for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    if sum(file.stat().st_size for file in files) > _LOOKED_AT_BYTES:
        return DataFacts("documents" if documents_by_name(file.name for file in files) else "rows")
    try:
        found = inspect(path)
    except BadData as error:
        raise refusal(field, str(error)) from error
    return _facts_of_page(
        {"splits": found.splits, "statistics": found.statistics.page(), "format": found.format}
    )
