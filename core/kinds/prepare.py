"""A prepare job: data as it is found -> one clean dataset, with a page on what became of every record."""

import shutil
from typing import Any

from core.artifacts import fresh_folder
from core.data.prepared.read_sources import Gathered, Opened, gather, open_sources
from core.data.prepared.retrieval_set import write_judged
from core.data.prepared.write_rows import write_chunks, write_rows
from core.data.retrieval_sets.judged_folders import is_judged
from core.data.training_rows.dataset import read_facts, write_facts
from core.data.training_rows.pairs import is_dataset
from core.errors import BadSpec
from core.jobs.protocol import dump_inputs
from core.runtime.context import RunContext
from core.spec.prepare import PrepareSpec
from core.spec.unused import unused_in_preparation

_REASONIR_LICENCE = "CC BY-NC 4.0 (ReasonIR)"


def prepare(spec: PrepareSpec, context: RunContext) -> None:
    """Read, clean, tell repetitions, split, draw negatives, publish. Raises `Stopped` or a `JobFailure`."""
    context.phase("preparing")
    work = fresh_folder(context.folder / "work")
    out = fresh_folder(work / "dataset")
    sources = open_sources(spec, context, work)
    task = settle_task(spec, sources)
    page: dict[str, Any] = {"task": task}
    judged = task == "retrieval" and all(_is_judged(opened) for opened in sources)
    documents = any(opened.documents for opened in sources)
    context.tell_unused(unused_in_preparation(spec, task, documents=documents, judged=judged))
    if judged:
        page |= write_judged(spec, context, sources, out)
        kind = "retrieval"
    else:
        rejects = out / "rejects.jsonl"
        gathered = gather(spec, context, sources, work, rejects)
        kind = {"retrieval": "retrieval", "chunks": "chunks"}.get(task, "triplets")
        if task == "chunks":
            page |= write_chunks(gathered, out, context)
        else:
            page |= write_rows(spec, context, gathered, out, rejects, task)
        page |= _accounts(gathered, page["rows"])
        _tell_unreadable(gathered, context)
        if not rejects.stat().st_size:
            rejects.unlink()
    facts = {
        **page,
        "licence": _licence(spec, sources, page),
        "sources": [source.model_dump(mode="json", exclude_defaults=True) for source in spec.sources],
        "inputs": dump_inputs(context.request.inputs),
        "split": spec.split.model_dump(mode="json"),
        "seed": spec.seed,
    }
    write_facts(out, kind, facts)
    _tell(facts, task, context)
    context.phase("publishing")
    told = ("splits", "statistics", "licence", "sources", "inputs")
    metadata = {name: facts[name] for name in told if name in facts}
    context.publish("dataset", "dataset", out, {"name": spec.name or "dataset", "type": kind, **metadata})
    shutil.rmtree(work)


def settle_task(spec: PrepareSpec, sources: list[Opened]) -> str:
    """What ``auto`` means for these sources. Raises `BadSpec` for a task that cannot be done with them."""
    documents = [opened for opened in sources if opened.documents]
    if spec.task == "auto":
        return "triplets" if documents else "columns"
    if spec.task in ("columns", "reasonir_hq") and documents:
        raise BadSpec(
            f"task {spec.task} is about rows, and {documents[0].source.ref} holds documents: triplets?"
        )
    if spec.task == "chunks" and len(documents) < len(sources):
        rows = next(opened for opened in sources if not opened.documents)
        raise BadSpec(f"task chunks is about documents, and {rows.source.ref} holds rows")
    return spec.task


def _is_judged(opened: Opened) -> bool:
    if is_dataset(opened.path):
        return read_facts(opened.path).get("type") == "retrieval"
    return not opened.documents and is_judged(opened.path)


def _licence(spec: PrepareSpec, sources: list[Opened], page: dict[str, Any]) -> str | None:
    """What was said, or those of the prepared datasets that it is made from."""
    if spec.licence is not None:
        return spec.licence
    found = [read_facts(opened.path).get("licence") for opened in sources if is_dataset(opened.path)]
    if _has_reasonir(page):
        found.append(_REASONIR_LICENCE)
    return "; ".join(dict.fromkeys(licence for licence in found if licence)) or None


def _has_reasonir(page: dict[str, Any]) -> bool:
    """Pairs are counted of ReasonIR's rows alone, however they were found out to be."""
    return any(name.startswith("positive: ") for name in page.get("pairs", {}))


def _accounts(gathered: Gathered, rows: int) -> dict[str, Any]:
    """What became of every record."""
    unreadable = gathered.unreadable.count
    return {
        "read": rows + unreadable + sum(gathered.left_out.values()),
        "kept": rows,
        "unreadable": unreadable,
        "lines": gathered.unreadable.lines or None,
        "left_out": dict(gathered.left_out.most_common()),
        "dropped_negatives": gathered.dropped_negatives,
        "pairs": {name: count for name, count in sorted(gathered.pairs.items()) if count},
    }


def _tell_unreadable(gathered: Gathered, context: RunContext) -> None:
    found = gathered.unreadable
    if not found.count:
        return
    context.notice(
        f"{found.count:,} of {found.read:,} lines ({found.count / found.read:.1%}) cannot be used and are "
        f"left out; the first: {found.examples[0]}. All of them are in rejects.jsonl.",
        "warning",
    )


def _tell(facts: dict[str, Any], task: str, context: RunContext) -> None:
    shown = ("type", "splits", "read", "kept", "unreadable", "left_out", "negatives", "passages")
    context.metrics = {"dataset": {name: facts[name] for name in shown if name in facts}}
    rows = ", ".join(f"{name} {number}" for name, number in facts["splits"].items() if number)
    context.notice(f"{facts['read']} records read, {facts['kept']} kept: {rows}.")
    if _has_reasonir(facts):
        context.notice(
            "ReasonIR's data are for noncommercial use, and so is what is trained on them. The positives of "
            "HQ are documents of BRIGHT: a model that is trained on them has seen a part of BRIGHT's corpus.",
            "warning",
        )
    lost = {
        name: count
        for name, count in facts.get("pairs", {}).items()
        if "no document" in name or "several" in name
    }
    if lost:
        context.notice(
            "Ids: " + ", ".join(f"{name} {count}" for name, count in lost.items()) + ".", "warning"
        )
