"""The retrieval sets that a spec names as evaluation sets, read as it asks."""

from pathlib import Path

from core.data.retrieval_sets.judgments import RetrievalSet
from core.data.rows.reading import TEXT_ROLES, Reading
from core.data.sources.retrieval import read_retrieval
from core.runtime.context import RunContext
from core.spec.parts.evaluation import JudgedSource


def read_judged_source(
    context: RunContext, source: JudgedSource, path: Path, name: str, max_reject_share: float
) -> RetrievalSet:
    """The retrieval set of a source that lies at ``path``, as its options ask; what was not used is told.

    ``name`` is what notices call it. Raises `BadData`.
    """
    reading = Reading.of(source, source.split)
    dataset = read_retrieval(
        path,
        source.split,
        max_reject_share,
        reading,
        on_missing=source.on_missing,
        identical_ids=source.identical_ids,
    )
    context.notices(reading.report.sentences(name, TEXT_ROLES))
    return dataset


def tell_remarks(context: RunContext, name: str, dataset: RetrievalSet) -> None:
    """A notice for each kind of irregularity of a set."""
    context.notices((f"{name}: {sentence}", level) for sentence, level in dataset.remarks.sentences())
