"""What an author writes about a passage, and somebody else might search for: titles, questions, definitions,
captions, the first sentence.

A draft is a possible query. Whether it is specific enough to be one depends on the whole corpus:
`core.data.queries`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

from core.data.documents.chunking import Span, sentences
from core.data.documents.passage import Draft
from core.data.documents.text_blocks import Block, Parsed, plain
from core.spec.parts.queries import QueryKind

_LEAST_SECTION = 40
"""Letters and digits that a section must have, links left aside, for its title to be a query. A Chinese,
Japanese or Korean character counts for as much as `_OF_DENSE` others."""

_LONGEST = 300
"""Characters of a query. What is longer is a text."""

_LONGEST_SENTENCE = 500
_LOOKED_AT_SENTENCES = 3
_LEAST_SENTENCE = 20
"""Letters and digits of a sentence that can be a query."""

_LEAST_LEADING = 120
"""The same of a section that ends with a colon: what it leads to is in the next passage."""

_FEWEST_WORDS = 3
_LETTER = re.compile(r"[^\W_]")
_DENSE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
_OF_DENSE = 3
_LOOKED_AT = 2000
_SHORT = "section says too little"
_LINKS = re.compile(r"\[[^\]]*\]\([^)]*\)|`[^`]*`_{1,2}|:\w+:`[^`]*`|https?://\S+")


def drafts_of(
    parsed: Parsed,
    blocks: Sequence[Block],
    span: Span,
    title: str,
    own_title: str | None = None,
    description: str | None = None,
) -> tuple[Draft, ...]:
    """The drafts of a passage; positions count from the passage's start.

    ``blocks`` are those that begin in the passage. ``title`` is the document's. ``own_title`` and
    ``description`` are what its front matter says of it, for its first passage.
    """
    text, sections = parsed.text, sections_of(span)
    found: list[Draft] = []
    if description:
        found.append(Draft("description", (description,)))
    named: set[str] = set()
    titled: list[Draft] = []
    for place, heading in enumerate(span.headings):
        words = heading.path[-1]
        if words and len(words) <= _LONGEST:
            kind: QueryKind = "questions" if is_question(words) else "titles"
            number = next(
                (at for at, (start, _) in enumerate(sections) if start == heading.end - span.start), -1
            )
            # What stands in sections below a title belongs to it, too.
            after = (other for other in span.headings[place + 1 :] if len(other.path) <= len(heading.path))
            end = next((other.start for other in after), span.end)
            says = _says_something(text[heading.end : end])
            draft = Draft(kind, title_forms(title, heading.path), section=number)
            titled.append(draft if says else replace(draft, forms=draft.forms[:1], refused=_SHORT))
            named |= {words, *heading.path[-2:-1]} if says else set()
    # The titles in a query say nothing new of what answers it, wherever they stand in the passage.
    spans = tuple(
        (heading.start - span.start, heading.end - span.start)
        for heading in span.headings
        if heading.path[-1] in named
    )
    found += [replace(draft, spans=spans) for draft in titled]
    if own_title and _says_something(text[span.start : span.end]):
        found.append(Draft("questions" if is_question(own_title) else "titles", (own_title,)))
    for block in blocks:
        if not block.level:
            found += _shifted(_of_block(text, block, span, title), span.start)
    sentence = _first_sentence_of(text, span)
    if sentence is not None:
        words = one_line(text[slice(*sentence)])
        found += _shifted([Draft("first_sentence", (words,), (sentence,))], span.start)
    return _distinct(found)


def title_forms(title: str, path: tuple[str, ...]) -> tuple[str, ...]:
    """A section's title; with the document's, in short and whole, with the title above it, and with all
    titles between them."""
    heading = path[-1]
    whole = heading
    for above in reversed((title, *path[:-1])):
        whole = joined(above, whole)
    short = _SUBTITLE.split(title, maxsplit=1)[0]
    nearest = path[-2] if len(path) > 1 else title
    forms = (heading, *(joined(above, heading) for above in (short, title, nearest)), whole)
    return tuple(form for form in dict.fromkeys(forms) if len(form) <= _LONGEST)


_SUBTITLE = re.compile(r"(?<=\w)(?::|\s+[-|\u2013\u2014])\s+(?=\w)")
"""What divides a title from what explains it: "Custom responses - HTML, stream, file"."""

_ASIDE = re.compile(r"\s*\([^()]*\)")


def joined(above: str, below: str) -> str:
    """Two titles as one query, as somebody would type them: the title above without what stands in
    parentheses, and without its last words if the title below has them, too."""
    known = set(_words(below))
    above = _ASIDE.sub("", above).strip() or above
    if known.issuperset(_words(above)):
        return below
    while (last := above.split()[-1:]) and known.issuperset(_words(last[0])):
        above = above[: -len(last[0])].rstrip()
    return f"{above} {below}"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


_MARKS = re.compile(r"^(?:[-*+>\u2022]|\d+[.)]|#{1,6})[ \t]+")


def one_line(text: str) -> str:
    """A text without the marks of Markdown, in one line."""
    return plain(_MARKS.sub("", " ".join(text.split())))


_QUESTION = re.compile(r"[?\uff1f\u061f]\W*$")


def is_question(text: str) -> bool:
    """Whether a text ends with a question mark: Latin, full-width or Arabic."""
    return bool(_QUESTION.search(text))


_ASKED = re.compile(
    # A question on a line of its own, in bold type or behind "Q:"; its answer follows. No two repetitions can
    # take the same characters: the time is linear.
    r"^[ \t]*(?:(?:[-*+>]|\d{1,4}[.)])[ \t]+)?(?P<cut>(?:<summary>|\*\*|__)?(?:Q\d{0,4} ?[:.)][ \t]*)?"
    r"(?P<text>[^\s?\uff1f*_<][^\n?\uff1f]{3,199}[?\uff1f])(?:</summary>|\*\*|__)?)[ \t]*$",
    re.M | re.I,
)
_DEFINED = re.compile(
    # "**Term**: what it is", "**Term.** What it is", or with a dash.
    r"^[ \t]*(?:[-*+][ \t]+)?(?P<cut>(?:\*\*|__)(?P<text>[^*_\n]{2,80}?)"
    r"(?:[:.](?:\*\*|__)|(?:\*\*|__)(?::|[ \t]*[\u2013\u2014]|[ \t]+-))[ \t]+)(?=\S[^\n]{30,})",
    re.M,
)
_IMAGE = re.compile(r"!\[(?P<text>[^\]\n]{10,300})\]\([^)\n]{0,500}\)")
_RST_CAPTION = re.compile(r"^[ \t]+:alt:[ \t]+(?P<text>[^\n]{10,300})$", re.M)


def _of_block(text: str, block: Block, span: Span, title: str) -> Iterator[Draft]:
    """Questions, definitions and captions in one block; positions are those of the document's text."""
    end = min(block.end, span.end)
    body = text[block.start : end]
    if block.prose:
        for match in _ASKED.finditer(body):
            words = one_line(match["text"])
            if _has_words(words) and end - block.start < span.end - span.start:
                yield Draft("questions", (words, joined(title, words)), (_at(match, block.start),))
        for match in _DEFINED.finditer(body):
            words = one_line(match["text"])
            if _LETTER.search(words) and not is_question(words):
                yield Draft("definitions", (words,), (_at(match, block.start),))
    for pattern in (_IMAGE, _RST_CAPTION):
        for match in pattern.finditer(body):
            words = one_line(match["text"])
            if _has_words(words):
                yield Draft("captions", (words, joined(title, words)), (_at(match, block.start),))


def _at(match: re.Match[str], start: int) -> tuple[int, int]:
    """What is taken out of a passage with the words of a draft: the marks around them, too."""
    group = "cut" if "cut" in match.re.groupindex else "text"
    return start + match.start(group), start + match.end(group)


def _shifted(drafts: Iterable[Draft], start: int) -> list[Draft]:
    """Positions in the document's text as positions in a passage that begins at ``start``."""
    return [
        replace(draft, spans=tuple((one - start, two - start) for one, two in draft.spans))
        for draft in drafts
    ]


def _distinct(drafts: list[Draft]) -> tuple[Draft, ...]:
    """One draft for each text, the first. A question in a heading is not also a title."""
    kept: dict[str, Draft] = {}
    for draft in drafts:
        if draft.forms and draft.forms[0].strip():
            kept.setdefault(" ".join(_words(draft.forms[0])), draft)
    return tuple(kept.values())


def sections_of(span: Span) -> tuple[tuple[int, int], ...]:
    """The bodies of the sections in a passage, without their titles; positions count from its start."""
    bounds = [span.start, *(heading.end for heading in span.headings)]
    ends = [*(heading.start for heading in span.headings), span.end]
    return tuple(
        (start - span.start, end - span.start) for start, end in zip(bounds, ends, strict=True) if end > start
    )


_MACRO = re.compile(r"\{[*%!][^\n]{0,500}?[*%!]\}|^[ \t]*(?:/{3,}|:{3,})[^\n]*$", re.M)
"""What a generator of pages replaces (a file that is included), and the marks of its boxes."""


def _says_something(body: str) -> bool:
    """Whether a section is more than links, as "See also" is, than an included file, or than a sentence
    which leads to what a cut has left elsewhere."""
    said = _MACRO.sub("", _LINKS.sub("", body[:_LOOKED_AT])).strip()
    leads = len(body) <= _LOOKED_AT and said.endswith((":", "\uff1a"))
    return _letters(said) >= (_LEAST_LEADING if leads else _LEAST_SECTION)


def _letters(text: str) -> int:
    return len(_LETTER.findall(text)) + (_OF_DENSE - 1) * len(_DENSE.findall(text))


def _has_words(text: str) -> bool:
    """Whether a text has a few words; scripts without spaces between them need two characters for one."""
    return len(text.split()) >= _FEWEST_WORDS or len(_DENSE.findall(text)) >= 2 * _FEWEST_WORDS


def _first_sentence_of(text: str, span: Span) -> tuple[int, int] | None:
    """The first sentence behind the headings that begin a passage; positions are those of the document."""
    begin = span.start + span.repeated
    for heading in span.headings:
        if heading.start <= begin:
            begin = heading.end
    found = first_sentence(text[begin : span.end], span.end - span.start)
    return None if found is None else (begin + found[0], begin + found[1])


def first_sentence(text: str, size: int) -> tuple[int, int] | None:
    """Where the first sentence is that says something, if it leaves anything to be found. ``size``:
    characters of the passage."""
    for start, end in islice(sentences(text), _LOOKED_AT_SENTENCES):
        words = text[start:end].strip()
        # What ends with a colon leads to what follows; marks and numbers alone say nothing.
        says_much = _letters(words) >= _LEAST_SENTENCE and not words.endswith(":")
        is_mark = words.startswith(("!", "[!", "|", "{", "<", ":::", "///")) or "```" in words
        if says_much and len(words) <= _LONGEST_SENTENCE and not is_mark:
            return (start, end) if size - (end - start) >= 2 * (end - start) else None
    return None
