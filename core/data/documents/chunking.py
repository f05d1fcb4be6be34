"""Documents into passages by their sections, between blocks, and between sentences where a block is too
long."""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from core.data.documents.text_blocks import Parsed

_END = re.compile(
    # A full stop before a capital or between spaces (tokenized texts), a CJK full stop, an empty line.
    r"(?<=\s)[.!?]\s+|[.!?][\"'\u201d\u2019)\]*_`]*\s+(?=[\"'\u201c\u2018(\[*_`]*[A-Z0-9\u00c0-\U0010ffff])"
    r"|[\u3002\uff01\uff1f]\s*|\n[ \t]*\n\s*"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[])(?:[A-Za-z]|e\.g|i\.e|cf|vs|etc|al|approx|Dr|Mr|Mrs|Ms|Prof|St|No|Fig|Eq|Sec|Ch|Vol|Jr|Sr|Inc|Ltd|Co|"
    r"pp|resp|incl)\.$",
)


@dataclass(frozen=True)
class Heading:
    """A section's title as it stands in a text, with the titles above it."""

    start: int
    end: int
    path: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A passage: ``text[start:end]``, of which the first ``repeated`` characters stand in the one before,
    too."""

    start: int
    end: int
    path: tuple[str, ...]
    headings: tuple[Heading, ...] = ()
    repeated: int = 0


@dataclass
class _Atom:
    start: int
    end: int
    path: tuple[str, ...]
    heading: bool
    prose: bool
    opens: bool = False  # a section

    @property
    def size(self) -> int:
        return self.end - self.start


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans of sentences that tile a text, each with the white space behind it."""
    found: list[tuple[int, int]] = []
    begin = 0
    for end in _END.finditer(text):
        before = text[max(begin, end.start() - 12) : end.start() + 1]
        if text[begin : end.end()].strip() and not _ABBREVIATION.search(before):
            found.append((begin, end.end()))
            begin = end.end()
    if found and not text[begin:].strip():
        found[-1] = (found[-1][0], len(text))
    elif begin < len(text):
        found.append((begin, len(text)))
    return found


def chunk(parsed: Parsed, least: int, most: int, overlap: int = 0) -> list[Span]:
    """Passages that tile the text, apart from what each repeats of the one before.

    Each has at least ``least`` characters where what follows lets it, and at most ``most``, unless a single
    code block, table or sentence has more.
    """
    room = most - overlap
    packed: list[list[_Atom]] = [[]]
    size = 0
    waiting = deque(_atoms(parsed, room))
    while waiting:
        atom = waiting.popleft()
        full = size + atom.size > room or (atom.opens and size >= least)
        if full and not all(item.heading for item in packed[-1]):
            carried = _trailing_headings(packed[-1])
            packed.append(carried)
            size = sum(item.size for item in carried)
        if packed[-1] and size + atom.size > room and len(parts := _sentences_of(atom, parsed.text)) > 1:
            # Below its titles a paragraph that is short enough may still be too long.
            waiting.extendleft(reversed(parts))
            continue
        packed[-1].append(atom)
        size += atom.size
    if len(packed) > 1 and size < least and size + sum(atom.size for atom in packed[-2]) <= room:
        packed[-2:] = [packed[-2] + packed[-1]]
    return [
        _span(parsed.text, atoms, packed[index - 1] if index else [], overlap)
        for index, atoms in enumerate(packed)
        if atoms
    ]


def _trailing_headings(atoms: list[_Atom]) -> list[_Atom]:
    """Takes titles with nothing below them off the end of a passage."""
    cut = len(atoms)
    while atoms[cut - 1].heading:
        cut -= 1
    carried = atoms[cut:]
    del atoms[cut:]
    return carried


def _atoms(parsed: Parsed, most: int) -> Iterator[_Atom]:
    path: list[tuple[int, str]] = []
    for block in parsed.blocks:
        if block.level:
            path = [
                *((level, title) for level, title in path if level < block.level),
                (block.level, block.title),
            ]
        titles = tuple(title for _, title in path)
        atom = _Atom(block.start, block.end, titles, bool(block.level), block.prose, bool(block.level))
        yield from _sentences_of(atom, parsed.text) if block.prose and atom.size > most else [atom]


def _sentences_of(atom: _Atom, text: str) -> list[_Atom]:
    if not atom.prose:
        return []
    spans = sentences(text[atom.start : atom.end])
    return [replace(atom, start=atom.start + start, end=atom.start + end) for start, end in spans]


def _span(text: str, atoms: list[_Atom], before: list[_Atom], overlap: int) -> Span:
    headings = tuple(Heading(atom.start, atom.end, atom.path) for atom in atoms if atom.heading)
    path = next((atom.path for atom in atoms if not atom.heading), atoms[0].path)
    start = atoms[0].start
    begin = start
    if overlap and before and before[-1].prose:
        last = before[-1]
        starts = [last.start + first for first, _ in sentences(text[last.start : last.end])]
        begin = min((place for place in starts if start - place <= overlap), default=start)
    return Span(begin, atoms[-1].end, path, headings, start - begin)
