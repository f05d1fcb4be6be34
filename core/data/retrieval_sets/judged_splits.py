"""Rows of every split of a judged set: each corpus is read once, however many splits share it."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from core.data.io.lookup import Texts
from core.data.io.stopping import checked, no_stop
from core.data.retrieval_sets.judged_folders import JudgedFiles, files_by_split, joined
from core.data.rows.record import TrainingRow
from core.data.rows.row import Judgment, Reject
from core.errors import BadData

_Split = tuple[str, JudgedFiles]


def rows_of_splits(
    folder: Path, check_stop: Callable[[], None] = no_stop, encoding: str | None = None
) -> Iterator[tuple[str, TrainingRow | Reject]]:
    """(split, row) for each relevant judgment; a reject where a text is missing or cannot be read.

    Raises `BadData` for judgments that cannot be read. Memory: the judgments and the queries that they name.
    """
    shared: dict[tuple[Path, ...], list[_Split]] = defaultdict(list)
    for split, parts in files_by_split(folder, encoding).items():
        for files in parts:
            if not files.corpus or not files.queries:
                raise BadData(f"split {split} has no {'queries' if files.corpus else 'corpus'}")
            shared[tuple(files.corpus)].append((split, files))
    for splits in shared.values():
        yield from _rows(splits, check_stop)


def _rows(splits: list[_Split], check_stop: Callable[[], None]) -> Iterator[tuple[str, TrainingRow | Reject]]:
    """Rows of splits that have one corpus."""
    relevant = [_relevant(files, check_stop) for _, files in splits]
    queries = _Queries(splits, relevant, check_stop)
    wanted = {judgment.document for judgments in relevant for judgment in judgments}
    first, corpus = splits[0]
    rejects: list[Reject] = []
    with Texts() as documents:
        documents.add(checked(corpus.documents(rejects), check_stop), wanted=wanted)
        for reject in [*rejects, *queries.rejects]:
            yield first, reject
        for (split, files), judgments in zip(splits, relevant, strict=True):
            for row in joined(judgments, queries.of(files), documents, files.domain):
                yield split, row


def _relevant(files: JudgedFiles, check_stop: Callable[[], None]) -> list[Judgment]:
    return [judgment for judgment in checked(files.judgments(), check_stop) if judgment.grade > 0]


class _Queries:
    """The texts of judged queries. A file that several splits share is read once."""

    def __init__(
        self, splits: list[_Split], relevant: list[list[Judgment]], check_stop: Callable[[], None]
    ) -> None:
        self.rejects: list[Reject] = []
        asked: dict[tuple[Path, ...], set[str]] = defaultdict(set)
        for (_, files), judgments in zip(splits, relevant, strict=True):
            asked[tuple(files.queries)] |= {judgment.query for judgment in judgments}
        self._texts: dict[tuple[Path, ...], dict[str, str]] = {}
        for _, files in splits:
            paths = tuple(files.queries)
            if paths in self._texts:
                continue
            texts = self._texts[paths] = {}
            for name, text in checked(files.questions(self.rejects), check_stop):
                if name in asked[paths]:
                    texts.setdefault(name, text)

    def of(self, files: JudgedFiles) -> dict[str, str]:
        return self._texts[tuple(files.queries)]
