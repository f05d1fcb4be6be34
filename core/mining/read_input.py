"""The input of mining: rows on disk, and their distinct texts and the corpus under numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from core.data.io.stopping import checked
from core.data.io.table_files import ArrowFile
from core.data.rows.kept_reading import kept_reading
from core.data.rows.reading import TEXT_ROLES, Reading
from core.data.rows.rejects import Rejects
from core.data.rows.remarks import FirstTexts, Irregularity, Remarks
from core.data.rows.row import Reject
from core.data.sources.corpus import CORPUS_ROLES, has_corpus, read_corpus
from core.data.training_rows.dataset import SCHEMA
from core.data.training_rows.pairs import read_pairs
from core.errors import BadData
from core.mining.distinct_texts import Pool
from core.mining.excluded import LeftOut
from core.runtime.context import RunContext
from core.spec.mine import MineSpec

_ROWS = 2048


@dataclass
class Gathered:
    """The rows in numbers: ``pairs`` [rows] of a query and its positive, ``categories`` and ``groups``
    [rows]; the first ``candidates`` documents may be negatives."""

    rows: Path
    pairs: np.ndarray
    categories: np.ndarray
    groups: np.ndarray
    queries: Pool
    documents: Pool
    candidates: int
    rejects: Rejects
    excluded: dict[int, set[int]] = field(default_factory=dict)
    """Of each query the documents that its rankings leave out: `core.mining.excluded`."""


def gather(spec: MineSpec, context: RunContext, source: Path, work: Path) -> Gathered:
    """Rows onto the disk, their distinct texts into pools. Raises `BadData`."""
    near = spec.filters.near_duplicates
    threshold = near.threshold if near else None
    queries = Pool(work, "queries", threshold, spec.seed)
    documents = Pool(work, "documents", threshold, spec.seed)
    own = has_corpus(source)
    corpora = dict.fromkeys(spec.corpora) or ({spec.dataset.ref: spec.dataset.split} if own else {})
    for reference, split in corpora.items():
        _add_corpus(context, reference, split, documents)
    candidates = len(documents) if corpora else None
    rejects, pairs, categories, groups = Rejects(), [], [], []
    left_out = LeftOut(source, spec.dataset.split)
    reading = Reading.of(spec.dataset, spec.dataset.split)
    with ArrowFile(work / "rows.arrow", SCHEMA, batch_rows=_ROWS) as file:
        for row in checked(read_pairs(source, reading=reading), context.check_stop):
            if isinstance(row, Reject):
                rejects.add(row)
                continue
            rejects.kept += 1
            labels = {"category": row.category, "dataset": spec.dataset.ref}
            positive = documents.add(row.positive, row.positive_id, group=row.group, **labels)
            if candidates is None:
                names: Sequence[str | None] = row.negative_ids or [None] * len(row.negatives)
                for text, name in zip(row.negatives, names, strict=True):
                    documents.add(text, name or None, dataset=spec.dataset.ref)
            query = queries.add(row.query, row.query_id, category=row.category)
            left_out.note(row, query)
            pairs.append((query, positive))
            categories.append(row.category)
            groups.append(row.group)
            if spec.keep_own == "never":
                row = replace(row, negatives=[], difficulty=[], negative_ids=[])
            file.add(vars(replace(row, scores=[])))
    rejects.check(spec.max_reject_share)
    if rejects.count:
        context.notice(
            f"{rejects.count} rows of {spec.dataset.ref} cannot be used and are left out; the first: "
            f"{rejects.examples[0]}.",
            "warning",
        )
    report = reading.report
    if own:  # the corpus has told of the same ids
        report.remarks = Remarks()
    context.notices(report.sentences(spec.dataset.ref, _roles(spec, has_corpus=candidates is not None)))
    queries.close()
    documents.close()
    of_rows = np.array(pairs, np.int64)
    return Gathered(
        work / "rows.arrow",
        of_rows,
        np.array([documents.label_number("category", category) for category in categories], np.int64),
        np.array([documents.group_number(group) for group in groups], np.int64),
        queries,
        documents,
        len(documents) if candidates is None else candidates,
        rejects,
        left_out.documents_of(queries, documents, of_rows, spec.dataset.identical_ids, context),
    )


def _roles(spec: MineSpec, *, has_corpus: bool) -> list[str]:
    """The roles of columns that mining uses. Without a corpus the rows' own negatives are candidates; with
    one they are kept where ``keep_own`` says so."""
    roles = [*TEXT_ROLES, "category", "group", "query_id", "positive_id", "negative_ids", "difficulty"]
    unused: set[str] = set()
    if spec.keep_own == "never":
        unused = {"difficulty", *(("negatives", "negative_ids") if has_corpus else ())}
    return [role for role in roles if role not in unused]


def _add_corpus(context: RunContext, reference: str, split: str | None, documents: Pool) -> None:
    """Every document of a corpus into the pool. Raises `BadData` where there is none."""
    count = unreadable = 0
    remarks = Remarks()
    seen = FirstTexts("document", remarks)
    reading = kept_reading(reference, context.place_of(reference), split, context.notice)
    for document in read_corpus(context.dataset_path(reference), split, reading):
        if isinstance(document, Reject):
            unreadable += 1
            continue
        if document.name is not None:
            seen.is_first(document.name, document.text)
        labels = {"category": document.category, "dataset": reference}
        documents.add(document.text, document.name, document.group, **labels)
        count += 1
        if count % _ROWS == 0:
            context.check_stop()
    if not count:
        raise BadData(f"{reference} has no documents")
    context.notices(reading.report.sentences(reference, CORPUS_ROLES))
    if unreadable:
        context.notice(f"{reference}: {unreadable} documents cannot be read and are left out.", "warning")
    if conflicts := remarks.count(Irregularity.DOCUMENT_CONFLICT):
        examples = ", ".join(remarks.examples(Irregularity.DOCUMENT_CONFLICT))
        context.notice(
            f"{reference}: documents with the id of an earlier one, but another text: {conflicts:,} "
            f"({examples}). All texts are candidates, and negative_ids do not tell them apart.",
            "warning",
        )
    if repeated := remarks.count(Irregularity.DOCUMENT_REPEATED):
        examples = ", ".join(remarks.examples(Irregularity.DOCUMENT_REPEATED))
        context.notice(
            f"{reference}: documents with the id and the text of an earlier one: {repeated:,} ({examples}). "
            "Each text counts once."
        )
