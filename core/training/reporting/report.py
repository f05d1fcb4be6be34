"""The report of a training: report.json, report.md, report.html and their plots."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from core.reports import Block, Document, Figure, Heading, Listing, Table, Text, write_document
from core.reports.plots import plot_curves, plot_histograms
from core.spec.parts.models import format_length
from core.spec.parts.refs import short_name
from core.spec.train import TrainSpec
from core.training.checkpoints.checkpoint import Evaluation
from core.training.reporting.facts import TrainingFacts


def write_report(
    folder: Path,
    spec: TrainSpec,
    facts: TrainingFacts,
    evaluations: list[Evaluation],
    log_history: list[dict[str, Any]],
    counts: dict[str, np.ndarray],
) -> None:
    """``facts`` are the numbers that the job measured, ``log_history`` the trainer's own log, ``counts`` the
    tokens of every query and document."""
    curve = [
        {name: entry[name] for name in ("step", "loss", "grad_norm", "learning_rate") if name in entry}
        for entry in log_history
        if "loss" in entry
    ]
    report = {
        **facts.as_dict(),
        "evaluations": [asdict(found) for found in evaluations],
        "curve": curve,
        "spec": spec.model_dump(mode="json"),
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    series: dict[str, list[tuple[int, float]]] = {}
    for evaluation in evaluations:
        for dataset, scores in evaluation.scores.items():
            for metric, value in scores.items():
                series.setdefault(f"{dataset} {metric}", []).append((evaluation.step, value))
    plot_curves([(point["step"], point["loss"]) for point in curve], series, folder / "curves.png")
    names = {"query": "queries", "document": "documents"}
    shown = {
        names[role]: np.minimum(found, np.percentile(found, 99))
        for role, found in counts.items()
        if len(found)
    }
    plot_histograms(shown, "tokens of a text, up to the 99th percentile", folder / "lengths.png")
    write_document(_document(spec, facts), folder)


def how_texts_are_read(spec: TrainSpec, facts: TrainingFacts) -> str:
    """What every score depends on beside the weights."""
    kept = ", ".join(f"{role} {format_length(tokens)}" for role, tokens in facts.saved_lengths.items())
    text = f"Prompts: {spec.prompts.said()}. Tokens of a text that are read: {kept}."
    if spec.family == "cross_encoder":
        asked = spec.evaluation.rerank
        text += f" It brings the {asked.depth} best candidates of {asked.retriever} into order."
    return text


def comparison_table(
    baseline: dict[str, Any], finetuned: dict[str, Any], names: tuple[str, str] = ("baseline", "fine-tuned")
) -> Table:
    """Both side by side."""
    rows = []
    for dataset, scores in finetuned.items():
        for metric, value in scores.items():
            before = baseline.get(dataset, {}).get(metric)
            columns = ("", "") if before is None else (f"{before:.4f}", f"{value - before:+.4f}")
            rows.append([dataset, metric, columns[0], f"{value:.4f}", columns[1]])
    return Table(["dataset", "metric", *names, "change"], rows, words=2)


def _document(spec: TrainSpec, facts: TrainingFacts) -> Document:
    rate = facts.tokens / facts.training_seconds if facts.training_seconds else 0
    blocks: list[Block] = [Text(f"{item.dataset}: {item.verdict}", item.tone) for item in facts.comparisons]
    blocks += [
        Text(f"{facts.steps} steps of {spec.batch_size}; {facts.rows} rows, {facts.rejects} refused."),
        Text(f"{facts.precision} on {facts.device}, {rate:,.0f} tokens a second."),
    ]
    if facts.pruned_tokens:
        before, after = facts.pruned_tokens
        blocks.append(
            Text(
                f"{after:,} of the documents' {before:,} tokens were read ({after / max(1, before):.1%}). At "
                f"this training's speed the others would have taken {facts.seconds_saved:,.1f} s more."
            )
        )
    if vectors := facts.vectors_per_document:
        blocks.append(
            Text(f"{vectors.mean} vectors a document on average; unpruned there are {vectors.unpruned}.")
        )
    if facts.finetuned:
        blocks += [
            Heading("Retrieval"),
            comparison_table(facts.baseline, facts.finetuned),
            Text(how_texts_are_read(spec, facts)),
        ]
        if facts.unpruned:
            blocks += [
                Text("With all vectors of its documents the same model has:"),
                comparison_table(facts.unpruned, facts.finetuned, ("unpruned", "pruned")),
            ]
        told = [f"{name}: {text}" for name, texts in facts.evaluation_sets.items() for text in texts]
        blocks += [Listing(told)] if told else []
        if facts.best_step is not None:
            blocks.append(Text(f"The weights kept are those of step {facts.best_step}, the best seen."))
    blocks += [
        Heading("Curves"),
        Figure("curves.png", "Loss and metrics over the steps"),
        Heading("Lengths"),
        Table(
            ["role", "cut after", "mean", "95 %", "longest", "share cut"],
            [
                [
                    role,
                    *map(str, (of_role.max_length, of_role.mean, of_role.p95, of_role.longest)),
                    f"{of_role.share_cut:.1%}",
                ]
                for role, of_role in (("query", facts.lengths.query), ("document", facts.lengths.document))
            ],
        ),
        Figure("lengths.png", "Tokens of queries and documents"),
    ]
    return Document(f"Training report: {spec.name or short_name(spec.base_model)}", blocks)
