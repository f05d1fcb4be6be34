"""Which drafts become queries: specific ones, in sections that say something, drawn by the weights of their
kinds."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from core.data.documents.passage import Draft, Passage
from core.data.queries.corpus_words import words_key
from core.data.queries.passage_file import Corpus, prefix_of
from core.data.queries.query_report import QueryReport
from core.data.queries.self_supervised import drafts_of_itself
from core.spec.parts.queries import SELF_SUPERVISED, Queries, QueryKind

_LEAST_TEXT = 20
"""Characters that must be left of a passage when what asks for it is taken out."""

_MOST_HIDDEN = 0.5
"""Share of a passage's text that may be taken out."""

_GIVEN = 1e6
"""The weight of queries that stand beside a passage: all others come behind."""

_ALONE: frozenset[QueryKind] = frozenset({"links", "definitions"})
"""Kinds whose words must say by themselves what they are about: "here" and "Note" do not."""

_CHECKED = 4096


@dataclass(frozen=True)
class Query:
    """A query for a passage. ``spans``: see `Draft`. ``shared``: the next passage answers it, too."""

    text: str
    kind: QueryKind
    spans: tuple[tuple[int, int], ...] = ()
    shared: bool = False


@dataclass(frozen=True)
class _Drawn:
    """A draft that is specific. ``order``: the larger the earlier; ``used``: by the weight of its kind;
    ``place``: among the passage's drafts."""

    order: float
    used: bool
    place: int
    query: Query


def choose_queries(
    corpus: Corpus, queries: Queries, seed: int, report: QueryReport, check_stop: Callable[[], None]
) -> Iterator[tuple[int, Passage, Passage | None, list[Query]]]:
    """Every passage with its number, the next one of its document, and the queries that are made of its own
    text, in the order of the passages.

    Memory: the passages of one document, at most some thousands of them.
    """

    def block(item: tuple[int, Passage, Passage | None]) -> tuple[str, int]:
        return item[1].document, item[0] // _CHECKED

    for _, document in groupby(corpus.followed(), key=block):
        drawn = []
        for number, passage, following in document:
            if number % _CHECKED == 0:
                check_stop()
            found = _draw(corpus, number, passage, queries, seed, report)
            drawn.append((number, passage, following, found))
        # A document of which nothing would be asked gets what there is, whatever its weight.
        nothing = not any(item.used for *_, found in drawn for item in found)
        for number, passage, following, found in drawn:
            able = found[:1] if nothing else [item for item in found if item.used]
            yield number, passage, following, _take(able, passage, queries, report)


def _drafts(corpus: Corpus, number: int, passage: Passage, queries: Queries, seed: int) -> Iterator[Draft]:
    """The drafts of the kinds that are asked for, those of links and of self-supervision included."""
    for draft in passage.drafts:
        if draft.kind == "description" and prefix_of(draft.forms[0]) in corpus.prefixes:
            draft = replace(draft, forms=(draft.forms[0].partition(":")[2].strip(),))
        if draft.kind == "given" or draft.kind in queries.of:
            yield draft
    for text in corpus.linked.get(number, ()):
        yield Draft("links", (text,))
    yield from drafts_of_itself(passage, [kind for kind in queries.of if kind in SELF_SUPERVISED], seed)


def _draw(
    corpus: Corpus,
    number: int,
    passage: Passage,
    queries: Queries,
    seed: int,
    report: QueryReport,
) -> list[_Drawn]:
    """The drafts of a passage that are specific, in the order in which they are to be taken."""
    drawn: list[_Drawn] = []
    known: set[int] = set()
    for draft in _drafts(corpus, number, passage, queries, seed):
        if draft.refused:
            report.leave_out(draft.refused, draft.kind, draft.forms[0], passage)
            continue
        if draft.kind != "given" and corpus.is_boilerplate(number, draft.section):
            report.leave_out("boilerplate section", draft.kind, draft.forms[0], passage)
            continue
        text = _settle(corpus, draft, queries, report, passage)
        if text is None or (key := words_key(text)) in known:
            continue
        known.add(key)
        weight = _GIVEN if draft.kind == "given" else queries.of[draft.kind]
        generator = random.Random(f"{seed} {passage.id} {text}")  # noqa: S311 - not a secret
        spans = draft.spans if queries.hide else ()
        # Efraimidis and Spirakis 2006: the largest u ** (1 / weight) are a weighted sample.
        drawn.append(
            _Drawn(
                generator.random() ** (1 / weight) if weight else -1.0,
                generator.random() < weight,
                len(drawn),
                Query(text, draft.kind, spans),
            )
        )
    return sorted(drawn, key=lambda item: (not item.used, -item.order, item.query.text))


def _take(drawn: list[_Drawn], passage: Passage, queries: Queries, report: QueryReport) -> list[Query]:
    """As many as are asked for, in the order of the text, as long as enough of the passage is left."""
    chosen: list[_Drawn] = []
    for item in drawn:
        is_given = item.query.kind == "given"
        if not is_given and len(chosen) >= queries.per_passage:
            report.leave_out("more than per_passage", item.query.kind, item.query.text, passage)
            continue
        hidden = hidden_spans(other.query for other in chosen)
        if is_given or _leaves_enough(passage.text, [*hidden, *item.query.spans]):
            chosen.append(item)
        else:
            report.leave_out("nothing else is in the passage", item.query.kind, item.query.text, passage)
    return [item.query for item in sorted(chosen, key=lambda item: item.place)]


def _settle(
    corpus: Corpus, draft: Draft, queries: Queries, report: QueryReport, passage: Passage
) -> str | None:
    """The form of a draft that is specific; None if there is none."""
    if draft.kind == "given" or draft.kind in SELF_SUPERVISED:  # the latter are checked when all are there
        return draft.forms[0]
    forms = [form for form in draft.forms if corpus.words.is_specific(form)]
    if not forms and draft.kind not in _ALONE:  # a title with all titles above it names what it can
        forms = list(draft.forms[-1:])
    if not forms:
        report.leave_out("not specific", draft.kind, draft.forms[0], passage)
        return None
    mode = queries.filters.ambiguous
    if mode == "keep":
        return draft.forms[0] if corpus.is_ambiguous(draft.forms[0], draft.kind) else forms[0]
    if mode == "drop" and corpus.is_ambiguous(draft.forms[0], draft.kind):
        report.leave_out("ambiguous", draft.kind, forms[0], passage)
        return None
    for form in forms:
        if not corpus.is_ambiguous(form, draft.kind):
            report.extended += form != draft.forms[0]
            return form
    report.leave_out("ambiguous", draft.kind, forms[-1], passage)
    return None


def hidden_spans(queries: Iterable[Query]) -> list[tuple[int, int]]:
    """What is taken out of a passage for all of its rows: what its author's queries say."""
    return [span for query in queries if query.kind not in SELF_SUPERVISED for span in query.spans]


def without(text: str, spans: list[tuple[int, int]]) -> str:
    """A text without some of its parts, and without white space around it."""
    parts, begin = [], 0
    for start, end in sorted(set(spans)):
        parts.append(text[begin : max(begin, start)])
        begin = max(begin, end)
    parts.append(text[begin:])
    return "".join(parts).strip()


def _leaves_enough(text: str, spans: list[tuple[int, int]]) -> bool:
    if not spans:
        return True
    left = len(without(text, spans))
    return left >= _LEAST_TEXT and left >= (1 - _MOST_HIDDEN) * len(text.strip())
