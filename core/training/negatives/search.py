"""One mining while training: every row's negatives among the texts of the training, by a model's vectors.

The filters and the search are those of mine jobs; texts are those of the training, in tokens already.
"""

import itertools
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.data.dedup.alike import Alike
from core.data.dedup.near_duplicates import Sketches
from core.engine.token_table import TokenTable
from core.engine.tokens import Frame
from core.families import dense
from core.ranking.inverted_lists import search_with_faiss
from core.ranking.negatives.choosing import choose_in_passes, order_candidates
from core.ranking.negatives.filters import Candidates, depth_beyond_answers
from core.ranking.negatives.starvation import Tally
from core.ranking.search import Nearest, search
from core.spec.parts.training import Remine
from core.training.negatives.mined_dataset import answers_of

_TEXTS = 8192


@dataclass(frozen=True)
class Texts:
    """What is mined: the rows of each dataset, and how their texts are cut."""

    table: TokenTable
    sizes: list[int]
    frame: Frame
    query_length: int
    document_length: int


@dataclass
class Negatives:
    """``starts`` [rows + 1] into ``documents``, numbers of texts: every row's negatives. ``warnings`` say
    which filters removed most candidates."""

    starts: np.ndarray
    documents: np.ndarray
    warnings: list[str]


class KnownAnswers:
    """Of every query the documents that answer it, and what nearly repeats them. Numbers of texts."""

    def __init__(self, table: TokenTable, asked: Remine, scratch: Path) -> None:
        self._answers = answers_of(table)
        self._alike: Alike | None = None
        if asked.near_duplicates is None:
            return
        _, documents, _ = table.numbers()
        known = np.unique(documents)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            sketches = Sketches(Path(folder), "documents", asked.near_duplicates.threshold)
            for start in range(0, len(known), _TEXTS):
                some = table.texts(known[start : start + _TEXTS])
                sketches.add([" ".join(map(str, text)) for text in some])  # a token takes a word's place
            self._known, self._alike = known, Alike(sketches)
        for query, own in self._answers.items():
            near = [self._alike.of(int(np.searchsorted(known, text))) for text in own]
            self._answers[query] = {int(known[place]) for place in set().union(*near)}

    def of(self, query: int) -> set[int]:
        return self._answers[query]

    def repeats(self, documents: np.ndarray) -> np.ndarray:
        """Which of these texts nearly repeats one before it. [texts] -> [texts]"""
        if self._alike is None:
            return np.zeros(len(documents), bool)
        return self._alike.repeats(np.searchsorted(self._known, documents))


def find_negatives(
    texts: Texts,
    embed: dense.Embed,
    asked: Remine,
    seed: tuple[int, ...],
    scratch: Path,
    device: str,
    check_stop: Callable[[], None],
    known_answers: KnownAnswers,
) -> Negatives:
    """Every row's negatives; ``scratch``: a file for embeddings."""
    queries, documents, starts = texts.table.numbers()
    asking, query_of = np.unique(queries, return_inverse=True)  # [distinct queries], [rows]
    known = np.unique(documents)
    of_queries = np.concatenate(list(_embed(texts, asking, texts.query_length, embed)))
    of_documents: Any = np.lib.format.open_memmap(
        scratch, mode="w+", dtype=np.float32, shape=(len(known), of_queries.shape[1])
    )
    try:
        begin = 0
        for vectors in _embed(texts, known, texts.document_length, embed):
            of_documents[begin : begin + len(vectors)] = vectors
            begin += len(vectors)
        positives = np.searchsorted(known, documents[starts[:-1]])
        found: list[np.ndarray] = []
        warnings: dict[str, None] = {}
        bounds = np.cumsum([0, *texts.sizes]).tolist()
        spans = [
            np.unique(np.searchsorted(known, documents[starts[first] : starts[end]]))
            for first, end in itertools.pairwise(bounds)
        ]
        for number, (first, end) in enumerate(itertools.pairwise(bounds)):
            able = np.arange(len(known)) if asked.across_datasets else spans[number]
            wanted, place = np.unique(query_of[first:end], return_inverse=True)
            most = max((len(known_answers.of(query)) for query in asking[wanted].tolist()), default=0)
            depth = depth_beyond_answers(asked.filters, most, len(able))
            nearest = _search(of_queries[wanted], of_documents, able, depth, asked, seed, device, check_stop)
            of_positives: dict[int, list[float]] = defaultdict(list)
            for start in range(first, end, _TEXTS):
                rows = slice(start, min(start + _TEXTS, end))
                scores = np.einsum("ij,ij->i", of_queries[query_of[rows]], of_documents[positives[rows]])
                for query, score in zip(place[rows.start - first :].tolist(), scores.tolist(), strict=False):
                    of_positives[query].append(score)
            of_dataset = known[spans[number]] if asked.prefer == "other_dataset" else None
            chosen, told = _choose(
                nearest,
                np.where(nearest.indices >= 0, known[able[nearest.indices]], -1),
                asking[wanted],
                of_positives,
                asked,
                (*seed, number),
                known_answers,
                of_dataset,
                len(able),
            )
            warnings |= dict.fromkeys(told)
            for row, query in zip(range(first, end), place.tolist(), strict=True):
                own = documents[starts[row] + 1 : starts[row + 1]]
                own = own[~np.isin(own, list(known_answers.of(int(queries[row]))))]
                found.append(_with_own(chosen[query], own, asked))
    finally:
        scratch.unlink(missing_ok=True)
    return Negatives(
        np.cumsum([0, *map(len, found)]),
        np.concatenate([*found, np.empty(0, np.int64)]).astype(np.int64),
        list(warnings),
    )


def _search(
    queries: np.ndarray,
    of_documents: np.ndarray,
    able: np.ndarray,
    depth: int,
    asked: Remine,
    seed: tuple[int, ...],
    device: str,
    check_stop: Callable[[], None],
) -> Nearest:
    """The nearest of the documents ``able``, by their places in it."""
    if asked.index == "faiss":
        return search_with_faiss(
            queries, [np.asarray(of_documents[able])], depth, seed=seed[0], check_stop=check_stop
        )
    return search(
        queries,
        (of_documents[able[start : start + _TEXTS]] for start in range(0, len(able), _TEXTS)),
        depth,
        device=device,
        check_stop=check_stop,
    )


def _choose(
    nearest: Nearest,
    found: np.ndarray,
    asking: np.ndarray,
    of_positives: dict[int, list[float]],
    asked: Remine,
    seed: tuple[int, ...],
    known_answers: KnownAnswers,
    own_dataset: np.ndarray | None,
    corpus: int,
) -> tuple[list[np.ndarray], list[str]]:
    """The negatives of every query, numbers of texts, and what to warn of.

    ``found`` [queries, depth] are the nearest as numbers of texts; ``asking`` likewise.
    """
    chosen: list[np.ndarray] = [np.empty(0, np.int64)] * len(asking)
    from_rank = np.zeros(len(asking), bool)

    def prefer(left: Candidates) -> np.ndarray | None:
        return None if own_dataset is None else ~np.isin(left.documents, own_dataset)

    def choose(queries: Sequence[int], tally: Tally, *, by_rank: bool) -> None:
        for query in queries:
            left, turn = order_candidates(
                found[query],
                nearest.scores[query],
                np.isin(found[query], list(known_answers.of(int(asking[query])))),
                of_positives[query],
                asked.filters,
                tally,
                sampling=asked.sampling,
                seed=(*seed, query),
                prefer=prefer,
                repeats=known_answers.repeats,
                corpus=corpus if by_rank else None,
            )
            taken = np.sort(turn[: asked.num_negatives])
            chosen[query] = left.documents[taken]
            from_rank[query] = bool(left.by_rank[taken].any())

    tally = choose_in_passes(
        choose, range(len(asking)), lambda query: len(chosen[query]) < asked.num_negatives, asked.filters
    )
    positives = np.array([score for scores in of_positives.values() for score in scores])
    return chosen, tally.warnings(asked.filters, positives, nearest.scores[found >= 0], int(from_rank.sum()))


def _with_own(mined: np.ndarray, own: np.ndarray, asked: Remine) -> np.ndarray:
    """A row's mined negatives, and those of its ``own`` that ``keep_own`` keeps."""
    own = own[~np.isin(own, mined)]
    if asked.keep_own == "always":
        return np.concatenate([own, mined])
    if asked.keep_own == "auto":
        return np.concatenate([mined, own[: max(0, asked.num_negatives - len(mined))]])
    return mined


def _embed(texts: Texts, numbers: np.ndarray, limit: int, embed: dense.Embed) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), _TEXTS):
        some = texts.table.framed(numbers[start : start + _TEXTS], texts.frame, limit)
        yield embed(some).cpu().numpy()
