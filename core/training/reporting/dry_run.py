"""Publish an estimate of a training: data are read, and nothing is trained."""

import json
import shutil

import numpy as np

from core.artifacts import fresh_folder
from core.models.memory import Step
from core.runtime.context import RunContext
from core.spec.train import TrainSpec
from core.training.prepare import Prepared


def publish_estimate(spec: TrainSpec, context: RunContext, prepared: Prepared) -> None:
    """What the training would take, measured on its data as far as that goes without a step."""
    lengths = prepared.lengths
    memory = prepared.memory(spec, context.request.processes, cached=prepared.cached)
    counts = prepared.tokens.counts()
    shorter = {
        role: float(np.minimum(counts[role] + prepared.reader.specials[role], limit).mean())
        for role, limit in lengths.limits.items()
    }
    on_average = Step(shorter["query"], shorter["document"], prepared.longest.documents_per_row)
    facts = {
        "dry_run": True,
        "rows": len(prepared.tokens),
        "rejects": prepared.rows.rejects,
        "lengths": lengths.as_dict(),
        "steps": prepared.steps,
        "tokens_per_step": on_average.tokens(min(spec.batch_size, len(prepared.tokens)))
        * spec.gradient_accumulation_steps,
        "parameters": prepared.parameters,
        "trained_parameters": prepared.trainable,
        "device": prepared.device,
        "precision": prepared.precision,
        "cached": prepared.cached,
        "memory": memory.as_dict(),
    }
    context.metrics = {"estimate": facts}
    processes = context.request.processes
    each = f" of each of {processes} processes" if processes > 1 else ""
    context.notice(
        f"Dry run: {prepared.steps} steps of about {facts['tokens_per_step']:,} tokens; about "
        f"{memory.total / 1e9:.1f} GB at the peak{each}, where all texts are as long as they may be"
        + (", the loss in micro-batches." if prepared.cached else ".")
    )
    folder = fresh_folder(context.folder / "work" / "report")
    (folder / "report.json").write_text(json.dumps({**facts, "spec": spec.model_dump(mode="json")}, indent=2))
    context.publish("report", "report", folder, {"name": "estimate"})
    shutil.rmtree(context.folder / "work")
