"""A prepare job: data as it is found -> one clean dataset, with a page on what became of every record."""

import shutil

from core.artifacts import fresh_folder
from core.data.prepared.read_sources import Gathered, Opened, gather, open_sources
from core.data.prepared.retrieval_set import write_judged
from core.data.prepared.write_rows import write_chunks, write_rows
from core.data.queries.report_document import write_query_report
from core.data.retrieval_sets.judged_folders import is_judged
from core.data.training_rows.page import DatasetPage, read_page
from core.data.training_rows.pairs import is_dataset
from core.errors import BadSpec
from core.jobs.protocol import dump_inputs
from core.retrieval.query_models import QueryModels
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
    judged = task == "retrieval" and all(_is_judged(opened) for opened in sources)
    documents = any(opened.documents for opened in sources)
    context.tell_unused(unused_in_preparation(spec, task, documents=documents, judged=judged))
    if judged:
        page = write_judged(spec, context, sources, out)
    else:
        rejects, models = out / "rejects.jsonl", QueryModels(context)
        gathered = gather(spec, context, sources, work, rejects, models)
        if task == "chunks":
            page = write_chunks(gathered, out, context)
        else:
            page = write_rows(spec, context, gathered, out, rejects, task, models)
        _account(page, gathered)
        if gathered.asking is not None:
            page.asking = gathered.asking.page()
        _tell_unreadable(gathered, context)
        if not rejects.stat().st_size:
            rejects.unlink()
    page.task = task
    page.licence = _licence(spec, sources, page)
    page.sources = [source.model_dump(mode="json", exclude_defaults=True) for source in spec.sources]
    page.inputs = dump_inputs(context.request.inputs)
    page.split = spec.split.model_dump(mode="json")
    page.seed = spec.seed
    page.write(out)
    _tell(page, context)
    context.phase("publishing")
    if page.asking is not None and page.passages is not None:
        report = fresh_folder(work / "report")
        write_query_report(page.asking, page.passages.all, report)
        context.publish("report", "report", report, {"name": spec.name or "queries"})
    metadata = page.as_dict("type", "splits", "statistics", "licence", "sources", "inputs")
    context.publish("dataset", "dataset", out, {"name": spec.name or "dataset", **metadata})
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
        return read_page(opened.path).type == "retrieval"
    return not opened.documents and is_judged(opened.path)


def _licence(spec: PrepareSpec, sources: list[Opened], page: DatasetPage) -> str | None:
    """What was said, or those of the prepared datasets that it is made from."""
    if spec.licence is not None:
        return spec.licence
    found = [read_page(opened.path).licence for opened in sources if is_dataset(opened.path)]
    if _has_reasonir(page):
        found.append(_REASONIR_LICENCE)
    return "; ".join(dict.fromkeys(licence for licence in found if licence)) or None


def _has_reasonir(page: DatasetPage) -> bool:
    """Pairs are counted of ReasonIR's rows alone, however they were found out to be."""
    return any(name.startswith("positive: ") for name in page.pairs or {})


def _account(page: DatasetPage, gathered: Gathered) -> None:
    """Say on the page what became of every record."""
    assert page.rows is not None
    page.kept = page.rows
    page.unreadable = gathered.unreadable.count
    page.read = page.kept + page.unreadable + sum(gathered.left_out.values())
    page.lines = gathered.unreadable.lines or None
    page.left_out = dict(gathered.left_out.most_common())
    page.dropped_negatives = gathered.dropped_negatives
    page.pairs = {name: count for name, count in sorted(gathered.pairs.items()) if count}


def _tell_unreadable(gathered: Gathered, context: RunContext) -> None:
    found = gathered.unreadable
    if not found.count:
        return
    context.notice(
        f"{found.count:,} of {found.read:,} lines ({found.count / found.read:.1%}) cannot be used and are "
        f"left out; the first: {found.examples[0]}. All of them are in rejects.jsonl.",
        "warning",
    )


def _tell_queries(page: DatasetPage, context: RunContext) -> None:
    """What the queries are made of, and a few of them."""
    assert page.asking is not None
    made = ", ".join(f"{kind} {count:,}" for kind, count in page.asking["made"].items())
    if page.asking["asked"] is not None:
        answers = f"{page.asking['made']['given']:,} answers"
        made = f"{page.asking['asked']:,} that people have asked, beside {answers}"
    left_out = ", ".join(f"{why} {count:,}" for why, count in page.asking["left_out"].items())
    context.notice(
        f"Queries: {made}{f'; left out: {left_out}' if left_out else ''}. The report shows "
        f"{len(page.asking['shown'])} of them beside their passages."
    )
    evaluated = [name for name in ("dev", "test") if page.splits.get(name)]
    if evaluated and page.asking["made"].keys() - {"given"}:
        context.notice(
            f"The queries of {' and '.join(evaluated)} are made of the documents, too: they are easier than "
            "those of people, and flatter a model that is trained on such. queries.real takes queries that "
            "people have asked.",
            "warning",
        )


def _tell(page: DatasetPage, context: RunContext) -> None:
    shown = ("splits", "read", "kept", "unreadable", "left_out", "negatives", "passages")
    context.metrics = {"dataset": page.as_dict(*shown)}
    rows = ", ".join(f"{name} {number}" for name, number in page.splits.items() if number)
    context.notice(f"{page.read} records read, {page.kept} kept: {rows}.")
    if page.asking is not None:
        _tell_queries(page, context)
    if _has_reasonir(page):
        context.notice(
            "ReasonIR's data are for noncommercial use, and so is what is trained on them. The positives of "
            "HQ are documents of BRIGHT: a model that is trained on them has seen a part of BRIGHT's corpus.",
            "warning",
        )
    lost = {
        name: count
        for name, count in (page.pairs or {}).items()
        if "no document" in name or "several" in name
    }
    if lost:
        context.notice(
            "Ids: " + ", ".join(f"{name} {count}" for name, count in lost.items()) + ".", "warning"
        )
