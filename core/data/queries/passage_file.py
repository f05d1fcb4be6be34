"""Passages with their drafts on disk, in the order of their coming, and what is known of the whole corpus.

Whether a title is specific, and whether a section is boilerplate, depends on all passages. So they are
written first, and read again when queries are chosen. Memory: some tens of bytes for each passage.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from core.data.dedup.alike import connected
from core.data.dedup.near_duplicates import Sketches
from core.data.documents.passage import Draft, Passage, flatten_spans, pair_spans
from core.data.io.table_files import ArrowFile, read_batches
from core.data.queries.corpus_words import CorpusWords, words_key
from core.data.rows.hashing import text_hash
from core.spec.parts.queries import Queries, QueryKind

_ROWS = 2048
_NEAR = 0.9
"""Jaccard similarity of three-word sequences from which two passages, or two sections, count as one."""

_REPEATED = 5
"""So many descriptions begin with what says nothing of their page."""

_PREFIX_WORDS = 5

_TEXT = pa.large_string()
_SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("text", _TEXT),
        ("document", _TEXT),
        ("category", _TEXT),
        ("title", _TEXT),
        ("path", pa.large_list(_TEXT)),
        ("number", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("kinds", pa.large_list(_TEXT)),  # of the drafts
        ("forms", pa.large_list(pa.large_list(_TEXT))),
        ("spans", pa.large_list(pa.large_list(pa.int32()))),  # start, end, start, end, ...
        ("of_sections", pa.large_list(pa.int32())),
        ("refused", pa.large_list(_TEXT)),
    ]
)

_DRAFTS = ("kinds", "forms", "spans", "of_sections", "refused")


@dataclass(frozen=True)
class Corpus:
    """All passages.

    ``group`` [passages]: passages that say nearly the same have one number. ``boilerplate`` [sections]:
    whether a section stands on many pages. ``first_section`` [passages + 1]: where each passage's begin.
    ``linked``: the words of links by the passage that they lead to. ``ambiguous`` [keys], sorted: the words
    (`words_key`) of drafts whose passages do not say the same; ``ambiguous_links`` those that a link cannot
    have, because titles and other links count. ``prefixes``: beginnings that many descriptions share.
    """

    path: Path
    words: CorpusWords
    group: np.ndarray
    boilerplate: np.ndarray
    first_section: np.ndarray
    linked: dict[int, list[str]]
    ambiguous: np.ndarray
    ambiguous_links: np.ndarray
    prefixes: frozenset[str]

    def __len__(self) -> int:
        return len(self.group)

    def passages(self) -> Iterator[Passage]:
        """Every passage, without its sections and links."""
        for batch in read_batches(self.path):
            for row in batch.to_pylist():
                yield _passage(row)

    def followed(self) -> Iterator[tuple[int, Passage, Passage | None]]:
        """Each passage with its number, and with the next passage of its document."""
        number, before = -1, None
        for number, passage in enumerate(self.passages()):
            if before is not None:
                yield number - 1, before, passage if passage.document == before.document else None
            before = passage
        if before is not None:
            yield number, before, None

    def is_ambiguous(self, text: str, kind: QueryKind) -> bool:
        """Whether drafts with the same words ask for passages that do not say the same."""
        key, keys = np.uint64(words_key(text)), self.ambiguous_links if kind == "links" else self.ambiguous
        place = int(np.searchsorted(keys, key))
        return place < len(keys) and bool(keys[place] == key)

    def is_boilerplate(self, passage: int, section: int) -> bool:
        """Whether a section of a passage is; with section -1, whether all of its sections are."""
        first, last = int(self.first_section[passage]), int(self.first_section[passage + 1])
        if first == last:
            return False
        return bool(self.boilerplate[first + section] if section >= 0 else self.boilerplate[first:last].all())


class PassageFile:
    """Takes passages as they come."""

    def __init__(self, work: Path, seed: int, queries: Queries, check_stop: Callable[[], None]) -> None:
        self._queries, self._check_stop = queries, check_stop
        self._stack = ExitStack()
        self._path = work / "drafts.arrow"
        rows = ArrowFile(self._path, _SCHEMA, batch_rows=_ROWS, on_full=self._flush)
        self._rows = self._stack.enter_context(rows)
        self._whole = Sketches(work, "passages", _NEAR, seed)
        self._sections = Sketches(work, "sections", _NEAR, seed)
        self._titles = array("Q")  # [sections]
        self._first_section = array("q", [0])
        self._anchors: dict[int, int] = {}
        self._links: list[tuple[str, int]] = []
        self._keys, self._of_keys = array("Q"), array("q")  # words of drafts, and their passages
        self._prefixes: Counter[str] = Counter()
        self._words = CorpusWords()
        self._waiting: list[str] = []

    def add(self, passage: Passage) -> None:
        number = len(self._first_section) - 1
        self._waiting += [passage.text[start:end] for start, end in passage.sections]
        title = text_hash((passage.title or passage.document).lower())
        self._titles.extend([title] * len(passage.sections))
        self._first_section.append(len(self._titles))
        for anchor in passage.anchors:
            self._anchors.setdefault(text_hash(anchor), number)
        self._links += [(link.text, text_hash(link.target)) for link in passage.links]
        for draft in passage.drafts:
            if draft.kind in self._queries.of and not draft.refused:
                for form in draft.forms:
                    self._add_key(form, number)
            if draft.kind == "description" and (prefix := prefix_of(draft.forms[0])):
                self._prefixes[prefix] += 1
        self._rows.add(_row(passage))

    def _add_key(self, text: str, passage: int) -> None:
        self._keys.append(words_key(text))
        self._of_keys.append(passage)

    def _flush(self) -> None:
        self._check_stop()
        rows = self._rows.waiting
        self._whole.add([row["text"] for row in rows])
        self._words.add([" ".join([row["text"], row["title"] or "", *row["path"]]) for row in rows])
        self._sections.add(self._waiting)
        self._waiting.clear()
        self._rows.flush()

    def close(self) -> Corpus:
        self._flush()
        self._stack.close()
        first = np.array(self._first_section, np.int64)
        group = _components(*self._whole.near(self._check_stop))
        ambiguous = self._shared_keys(group)
        linked: dict[int, list[str]] = {}
        for text, target in dict.fromkeys(self._links if "links" in self._queries.of else ()):
            if (passage := self._anchors.get(target)) is not None:
                linked.setdefault(passage, []).append(text)
                self._add_key(text, passage)
        return Corpus(
            self._path,
            self._words,
            group,
            self._repeated(),
            first,
            linked,
            ambiguous,
            self._shared_keys(group),
            frozenset(text for text, count in self._prefixes.items() if count >= _REPEATED),
        )

    def _shared_keys(self, group: np.ndarray) -> np.ndarray:
        """The keys so far that stand beside different groups."""
        return shared_keys(np.array(self._keys, np.uint64), group[np.array(self._of_keys, np.int64)])

    def _repeated(self) -> np.ndarray:
        """Whether each section stands under many titles. [sections]"""
        group = _components(*self._sections.near(self._check_stop))
        least = self._queries.filters.boilerplate
        if not len(group) or least is None:
            return np.zeros(len(group), bool)
        titles = np.array(self._titles, np.uint64)
        order = np.lexsort((titles, group))
        groups, names = group[order], titles[order]
        new = np.ones(len(groups), bool)
        new[1:] = (groups[1:] != groups[:-1]) | (names[1:] != names[:-1])
        counts = np.bincount(groups[new], minlength=int(group.max()) + 1)
        return np.asarray(counts[group] >= least)


def shared_keys(keys: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The keys [n] that stand beside different groups [n]; sorted, each once."""
    order = np.lexsort((groups, keys))
    keys, groups = keys[order], groups[order]
    differs = (keys[1:] == keys[:-1]) & (groups[1:] != groups[:-1])
    return np.unique(keys[1:][differs])


def prefix_of(text: str) -> str:
    """What stands before the first colon, if it is short: "Learn more about"."""
    prefix, colon, rest = text.partition(":")
    return prefix if colon and rest.strip() and len(prefix.split()) <= _PREFIX_WORDS else ""


def _components(same_as: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The number of each text's group of texts that say the same, or nearly, however indirectly. [texts]"""
    size = len(same_as)
    if not size:
        return np.zeros(0, np.int64)
    one = np.concatenate([np.arange(size), near[:, 0]])
    two = np.concatenate([same_as, near[:, 1]])
    return connected(one, two, size)


def _row(passage: Passage) -> dict[str, object]:
    plain = ("id", "text", "document", "category", "title", "number", "start", "end")
    drafts = passage.drafts
    return {
        **{name: getattr(passage, name) for name in plain},
        "path": list(passage.path),
        "kinds": [draft.kind for draft in drafts],
        "forms": [list(draft.forms) for draft in drafts],
        "spans": [flatten_spans(draft.spans) for draft in drafts],
        "of_sections": [draft.section for draft in drafts],
        "refused": [draft.refused for draft in drafts],
    }


def _passage(row: dict[str, list]) -> Passage:  # type: ignore[type-arg]
    drafts = tuple(
        Draft(kind, tuple(forms), pair_spans(spans), section, refused)
        for kind, forms, spans, section, refused in zip(*(row.pop(name) for name in _DRAFTS), strict=True)
    )
    return Passage(**{**row, "path": tuple(row["path"]), "drafts": drafts})  # type: ignore[arg-type]
