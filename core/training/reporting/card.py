"""A model's card, in the hub's format: what it is, from what it was made, how good it was measured to be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from core.reports import Block, Document, Heading, Listing, Table, Text
from core.spec.parts.models import format_length
from core.spec.parts.refs import parse_ref
from core.spec.train import TrainSpec
from core.training.reporting.facts import TrainingFacts
from core.training.reporting.report import comparison_table


def write_model_card(path: Path, spec: TrainSpec, facts: TrainingFacts) -> None:
    """README.md of the model's folder."""
    _write(
        path,
        spec,
        [
            Text(
                f"Fine-tuned from `{spec.base_model}` on {_datasets(spec)}: {facts.rows} pairs, "
                f"{facts.steps} steps, batch size {spec.batch_size}, learning rate "
                f"{spec.learning_rate:g}, {_LOSSES[spec.loss.name]} at temperature {spec.loss.temperature:g}."
            ),
            *_licences(facts),
            *_measured(facts),
            Heading("Where it comes from"),
            Table(
                ["", ""],
                [
                    ["base model's weights, sha256", str(facts.base_model_sha256)],
                    ["rows, sha256", str(facts.rows_sha256)],
                    ["seed", str(spec.seed)],
                    ["precision", facts.precision],
                    ["trained on texts up to", _trained_lengths(facts)],
                    ["reads texts up to", _saved_lengths(facts)],
                    ["prompts", spec.prompts.said()],
                    ["tokens seen", f"{facts.tokens:,}"],
                    ["parameters trained", f"{facts.trained_parameters:,} of {facts.parameters:,}"],
                    *(
                        ["input", f"{name}: {known.get('sha256', '')}"]
                        for name, known in facts.inputs.items()
                    ),
                ],
                words=2,
            ),
        ],
        license="other" if facts.licences else None,
        license_name="as-its-training-data" if facts.licences else None,
        eval_results=_results(facts) or None,
    )


def write_checkpoint_card(path: Path, reference: str, spec: TrainSpec, step: int) -> None:
    """README.md of a model that was made of a checkpoint of a training."""
    _write(
        path,
        spec,
        [
            Text(
                f"`{reference}`: as it was after step {step} of a training from `{spec.base_model}` on "
                f"{_datasets(spec)}. The training may not have been at its end."
            ),
            Heading("Where it comes from"),
            Table(["", ""], [["seed", str(spec.seed)], ["prompts", spec.prompts.said()]], words=2),
        ],
    )


def _write(path: Path, spec: TrainSpec, blocks: list[Block], **facts: Any) -> None:
    """The card of a trained model. ``facts`` are further fields of its metadata."""
    about = _FAMILIES[spec.family]
    base = parse_ref(spec.base_model)
    of_hub = [ref.target for ref in (parse_ref(source.ref) for source in spec.datasets) if ref.scheme == "hf"]
    data = ModelCardData(
        library_name=about.library,
        pipeline_tag=about.task,
        tags=list(about.tags),
        base_model=base.target if base.scheme == "hf" else None,
        base_model_relation="finetune" if base.scheme == "hf" else None,
        datasets=sorted(set(of_hub)) or None,
        model_name=spec.name or about.title,
        **facts,
    )
    body = Document(spec.name or about.title, blocks)
    usage = f"```python\n{about.usage}\n```\n"
    path.write_text(f"---\n{data.to_yaml()}\n---\n\n{body.markdown()}\n## Use\n\n{usage}", encoding="utf-8")


def _datasets(spec: TrainSpec) -> str:
    return ", ".join(f"`{source.ref}`" for source in spec.datasets)


def _trained_lengths(facts: TrainingFacts) -> str:
    return _tokens(facts.lengths.limits)


def _saved_lengths(facts: TrainingFacts) -> str:
    return _tokens(facts.saved_lengths)


def _tokens(lengths: dict[str, int]) -> str:
    return ", ".join(f"{format_length(tokens)} tokens a {role}" for role, tokens in lengths.items())


def _results(facts: TrainingFacts) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value, 5),
        )
        for dataset, scores in facts.finetuned.items()
        for metric, value in scores.items()
    ]


def _licences(facts: TrainingFacts) -> list[Block]:
    return [Text(f"It was trained on data under: {'; '.join(facts.licences)}.")] if facts.licences else []


def _measured(facts: TrainingFacts) -> list[Block]:
    if not facts.finetuned:
        return []
    verdicts = [f"{item.dataset}: {item.verdict}" for item in facts.comparisons]
    table = comparison_table(facts.baseline, facts.finetuned)
    return [Heading("Measured"), table, *([Listing(verdicts)] if verdicts else [])]


_LOSSES = {
    "mnrl": "multiple negatives ranking loss",
    "margin_mse": "margin MSE",
    "distillation": "distillation (Kullback-Leibler divergence)",
    "bce": "binary cross entropy",
    "lambda": "LambdaLoss",
    "cosent": "CoSENT loss",
    "regression": "squared error of similarity and score",
}


@dataclass(frozen=True)
class _About:
    """What the card says of a family."""

    title: str
    library: str
    task: str
    tags: tuple[str, ...]
    usage: str


_FAMILIES = {
    "dense": _About(
        "A fine-tuned embedding model",
        "sentence-transformers",
        "sentence-similarity",
        ("sentence-transformers", "feature-extraction", "dense"),
        """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
similarities = model.similarity(model.encode_query(["..."]), model.encode_document(["..."]))""",
    ),
    "late_interaction": _About(
        "A fine-tuned late-interaction model",
        "PyLate",
        "sentence-similarity",
        ("PyLate", "ColBERT", "late-interaction"),
        """from pylate import models, scores

model = models.ColBERT("path/to/this/folder")
queries, documents = model.encode(["..."], is_query=True), model.encode(["..."], is_query=False)
similarity = scores.colbert_scores(queries[0][None], documents[0][None])""",
    ),
    "cross_encoder": _About(
        "A fine-tuned reranker",
        "sentence-transformers",
        "text-ranking",
        ("sentence-transformers", "cross-encoder", "reranker"),
        """from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder")
ranking = model.rank("a query", ["a document", "another one"])""",
    ),
}
