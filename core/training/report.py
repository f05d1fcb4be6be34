"""What a training job leaves to read: report.json, report.md, curves.png and the model's card."""

import json
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


def comparison_table(baseline: dict[str, Any], finetuned: dict[str, Any]) -> str:
    """Baseline and fine-tuned side by side, as a markdown table."""
    lines = ["| dataset | metric | baseline | fine-tuned | change |", "|---|---|---:|---:|---:|"]
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
    if facts["finetuned"]:
        parts += ["## Retrieval", comparison_table(facts["baseline"], facts["finetuned"])]
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
    header = [
        "---",
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "tags: [sentence-transformers, feature-extraction, dense]",
        f"base_model: {json.dumps(spec.base_model)}",
        "---",
    ]
    datasets = ", ".join(f"`{source.ref}`" for source in spec.datasets)
    made_from = (
        f"Fine-tuned from `{spec.base_model}` on {datasets}: {facts['rows']} pairs, "
        f"{facts['steps']} steps, batch size {spec.batch_size}, learning rate {spec.learning_rate:g}, "
        f"multiple negatives ranking loss at temperature {spec.loss.temperature:g}."
    )
    body = [f"# {spec.name or 'A fine-tuned embedding model'}", made_from]
    if facts["licences"]:
        body.append(f"It was trained on data under: {'; '.join(facts['licences'])}.")
    body.append(_USAGE)
    if facts["finetuned"]:
        body += ["## Measured", comparison_table(facts["baseline"], facts["finetuned"])]
    path.write_text("\n".join(header) + "\n\n" + "\n\n".join(body) + "\n", encoding="utf-8")


_USAGE = """```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
similarities = model.similarity(model.encode_query(["..."]), model.encode_document(["..."]))
```"""
