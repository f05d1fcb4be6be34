"""What a training job leaves to read: report.json, report.md, curves.png and the model's card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.spec.train import TrainSpec


def write_report(
    folder: Path,
    spec: TrainSpec,
    facts: dict[str, Any],
    evaluations: list[dict[str, Any]],
    log_history: list[dict[str, Any]],
) -> None:
    """``facts`` are the numbers that the job measured, ``log_history`` the trainer's own log."""
    curve = [
        {name: entry[name] for name in ("step", "loss", "grad_norm", "learning_rate") if name in entry}
        for entry in log_history
        if "loss" in entry
    ]
    report = {**facts, "evaluations": evaluations, "curve": curve, "spec": spec.model_dump(mode="json")}
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    (folder / "report.md").write_text(_markdown(spec, facts), encoding="utf-8")
    plot_curves(curve, evaluations, folder / "curves.png")


def comparison_table(
    baseline: dict[str, Any], finetuned: dict[str, Any], names: tuple[str, str] = ("baseline", "fine-tuned")
) -> str:
    """Both side by side, as a markdown table."""
    lines = [f"| dataset | metric | {' | '.join(names)} | change |", "|---|---|---:|---:|---:|"]
    for dataset, scores in finetuned.items():
        for metric, value in scores.items():
            before = baseline.get(dataset, {}).get(metric)
            columns = ("", "") if before is None else (f"{before:.4f}", f"{value - before:+.4f}")
            lines.append(f"| {dataset} | {metric} | {columns[0]} | {value:.4f} | {columns[1]} |")
    return "\n".join(lines)


def _markdown(spec: TrainSpec, facts: dict[str, Any]) -> str:
    lengths = facts["lengths"]
    rate = facts["tokens"] / facts["training_seconds"] if facts["training_seconds"] else 0
    parts = [
        f"# Training report: {spec.name or spec.base_model}",
        f"{facts['steps']} steps of {spec.batch_size}; {facts['rows']} rows, {facts['rejects']} refused.",
        f"{facts['precision']} on {facts['device']}, {rate:,.0f} tokens a second.",
    ]
    if facts["pruned_tokens"]:
        before, after = facts["pruned_tokens"]
        parts.append(
            f"{after:,} of the documents' {before:,} tokens were read ({after / max(1, before):.1%})."
        )
    if vectors := facts.get("vectors_per_document"):
        parts.append(
            f"{vectors['mean']} vectors a document on average; unpruned there are {vectors['unpruned']}."
        )
    if facts["finetuned"]:
        parts += ["## Retrieval", comparison_table(facts["baseline"], facts["finetuned"])]
        if facts["unpruned"]:
            parts += ["With all vectors of its documents the same model has:"]
            parts.append(comparison_table(facts["unpruned"], facts["finetuned"], ("unpruned", "pruned")))
        if facts["best_step"] is not None:
            parts.append(f"The weights kept are those of step {facts['best_step']}, the best seen.")
    parts += [
        "## Lengths",
        "| role | cut after | mean | 95 % | longest | share cut |\n|---|---:|---:|---:|---:|---:|\n"
        + "\n".join(
            f"| {role} | {found['max_length']} | {found['mean']} | {found['p95']} | {found['longest']} "
            f"| {found['share_cut']:.1%} |"
            for role, found in (("query", lengths["query"]), ("document", lengths["document"]))
        ),
        "## Curves",
        "![loss and metrics](curves.png)",
    ]
    return "\n\n".join(parts) + "\n"


def plot_curves(curve: list[dict[str, Any]], evaluations: list[dict[str, Any]], path: Path) -> None:
    """Loss on the left, every metric over the steps on the right."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, metric_axes = figure.subplots(1, 2)
    loss_axes.plot([point["step"] for point in curve], [point["loss"] for point in curve])
    loss_axes.set(title="training loss", xlabel="step")
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in evaluations:
        for dataset, scores in entry["scores"].items():
            for metric, value in scores.items():
                series.setdefault(f"{dataset} {metric}", []).append((entry["step"], value))
    for name, points in series.items():
        metric_axes.plot(*zip(*points, strict=True), marker="o", label=name)
    metric_axes.set(title="retrieval", xlabel="step")
    if series:
        metric_axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def write_model_card(path: Path, spec: TrainSpec, facts: dict[str, Any]) -> None:
    """The hub's README format: what the model is, from what it was made, how good it was measured to be."""
    about = _FAMILIES[spec.family]
    header = [
        "---",
        f"library_name: {about.library}",
        f"pipeline_tag: {about.task}",
        f"tags: [{', '.join(about.tags)}]",
        f"base_model: {json.dumps(spec.base_model)}",
        "---",
    ]
    datasets = ", ".join(f"`{source.ref}`" for source in spec.datasets)
    made_from = (
        f"Fine-tuned from `{spec.base_model}` on {datasets}: {facts['rows']} pairs, "
        f"{facts['steps']} steps, batch size {spec.batch_size}, learning rate {spec.learning_rate:g}, "
        f"{_LOSSES[spec.loss.name]} at temperature {spec.loss.temperature:g}."
    )
    body = [f"# {spec.name or about.title}", made_from]
    if facts["licences"]:
        body.append(f"It was trained on data under: {'; '.join(facts['licences'])}.")
    body.append(f"```python\n{about.usage}\n```")
    if facts["finetuned"]:
        body += ["## Measured", comparison_table(facts["baseline"], facts["finetuned"])]
    path.write_text("\n".join(header) + "\n\n" + "\n\n".join(body) + "\n", encoding="utf-8")


_LOSSES = {
    "mnrl": "multiple negatives ranking loss",
    "margin_mse": "margin MSE",
    "distillation": "distillation (Kullback-Leibler divergence)",
    "bce": "binary cross entropy",
    "lambda": "LambdaLoss",
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
