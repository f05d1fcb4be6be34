"""A document's text as blocks that nothing may cut through: headings, paragraphs, code, tables.

Blocks are spans that tile the text: each begins where the one before ends, white space behind a block belongs
to it.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("commonmark").enable("table").disable("inline")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster
_OPAQUE = {"fence", "code_block", "table_open", "html_block"}


@dataclass(frozen=True)
class Block:
    """``text[start:end]``. ``level`` (from 1) and ``title`` are a heading's; ``prose`` may be cut between
    sentences."""

    start: int
    end: int
    prose: bool
    level: int = 0
    title: str = ""


@dataclass(frozen=True)
class Parsed:
    """A text without its front matter, what that said, and its blocks."""

    text: str
    facts: dict[str, Any]
    blocks: list[Block]


_FRONT = re.compile(r"\A---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S | re.M)


def parse_markdown(text: str) -> Parsed:
    """CommonMark with tables (markdown-it). YAML front matter becomes ``facts``."""
    text = normalized(text)
    facts: dict[str, Any] = {}
    if front := _FRONT.match(text):
        facts = _yaml(front[1])
        text = text[front.end() :]
    return Parsed(text, facts, _tiled(text, _markdown_starts(text)))


def parse_rst(text: str) -> Parsed:
    """reStructuredText: sections by their adornment; directives with code, literal blocks and tables are
    whole."""
    text = normalized(text)
    return Parsed(text, {}, _tiled(text, _rst_starts(text)))


def parse_plain(text: str) -> Parsed:
    """Paragraphs between empty lines."""
    text = normalized(text)
    starts = [_Start(line, True) for line in _paragraph_lines(text.split("\n"))]
    return Parsed(text, {}, _tiled(text, iter(starts)))


def normalized(text: str) -> str:
    """With line feeds alone as line ends."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class _Start:
    """A block begins at this line (from 0)."""

    line: int
    prose: bool
    level: int = 0
    title: str = ""


def _tiled(text: str, starts: Iterator[_Start]) -> list[Block]:
    """Starts of blocks as spans. What stands before the first belongs to it."""
    offsets = [0]
    for line in text.split("\n"):
        offsets.append(offsets[-1] + len(line) + 1)
    found = list(starts) or [_Start(0, True)]
    ends = [offsets[start.line] for start in found[1:]] + [len(text)]
    begin = 0
    blocks = []
    for start, end in zip(found, ends, strict=True):
        if end > begin:
            blocks.append(Block(begin, end, start.prose, start.level, start.title))
            begin = end
    return blocks


def _markdown_starts(text: str) -> Iterator[_Start]:
    tokens = _MARKDOWN.parse(text)
    for index, token in enumerate(tokens):
        if token.map is None or token.nesting < 0:
            continue
        line = token.map[0]
        if token.level == 0 and token.type == "heading_open":
            yield _Start(line, False, int(token.tag[1:]), plain(tokens[index + 1].content))
        elif token.level == 0 and token.type not in ("bullet_list_open", "ordered_list_open"):
            yield _Start(line, token.type == "paragraph_open" or _is_prose(tokens, index))
        elif token.level == 1 and token.type == "list_item_open":
            yield _Start(line, _is_prose(tokens, index))


def _is_prose(tokens: list[Token], index: int) -> bool:
    """Whether a list item or a quotation has neither code nor tables in it."""
    if tokens[index].nesting != 1:
        return False
    level = tokens[index].level
    for token in tokens[index + 1 :]:
        if token.level == level:
            return True
        if token.type in _OPAQUE:
            return False
    return True


_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ATTRIBUTES = re.compile(r"\s*\{[^{}]*\}\s*$")
_LITERAL = re.compile(r"(`{1,2})(?!`)(?P<code>.{1,300}?)(?<!`)\1(?!`)|\\(?P<escaped>[!-/:-@\[-`{-~])")
_STRONG = re.compile(r"(\*\*|(?<!\w)__|__(?!\w)|`)")
_EMPHASIS = re.compile(
    r"(?<![\w*])\*(?=[^\s*])([^*]+)(?<=\S)\*(?![\w*])|(?<!\w)_(?=[^\s_])([^_]+)(?<=\S)_(?!\w)"
)
_TAG = re.compile(r"</?[a-z][\w-]*(?:\s[^<>]*)?/?>|<!--.{0,300}?-->")
_KEPT = re.compile("\0(\\d+)\0")


def plain(heading: str) -> str:
    """A heading's words, without its marks, links, tags and attributes. What stands in code stays as it
    is."""
    heading = _ATTRIBUTES.sub("", heading)
    literals: list[str] = []

    def keep(match: re.Match[str]) -> str:
        literals.append(match["code"] or match["escaped"])
        return f"\0{len(literals) - 1}\0"

    # Marks may enclose code: a place is kept for it while they are taken off.
    text = _LINK.sub(r"\1", _LITERAL.sub(keep, heading.replace("\0", " ")))
    text = _STRONG.sub("", _TAG.sub(" ", text))
    text = _EMPHASIS.sub(lambda match: match[1] or match[2], text)
    text = _KEPT.sub(lambda match: literals[int(match[1])], text)
    return " ".join(text.split())


_NESTED = re.compile(r"^\s{200}|^\s*(?:[-?]\s+){10}", re.M)


def _is_flat(text: str) -> bool:
    """Whether a loader that recurses, in C, can be trusted with a text."""
    return len(text) <= 1 << 16 and text.count("[") + text.count("{") <= 500 and not _NESTED.search(text)


def _yaml(text: str) -> dict[str, Any]:
    try:
        if not _is_flat(text):
            raise ValueError("nested too deeply")
        found = yaml.load(text, _LOADER)  # noqa: S506 - both are the safe one
    except (yaml.YAMLError, ValueError):
        # Written by hand and by many tools: what can be read line by line is enough.
        pairs = (line.partition(":") for line in text.split("\n") if re.match(r"\w+:", line))
        return {name: value.strip().strip("\"'") for name, _, value in pairs}
    return found if isinstance(found, dict) else {}


# -- reStructuredText --------------------------------------------------------------------------------

_ADORNMENT = re.compile(r"^([!-/:-@\[-`{-~])\1{2,}\s*$")
_TABLE = re.compile(r"^\s*(\+[-=+]+\+|=+( +=+)+)\s*$")
_WHOLE = re.compile(
    r"^\s*\.\. (?:[\w-]+:)?(code|code-block|sourcecode|literalinclude|math|parsed-literal|table|csv-table|"
    r"list-table|doctest|testcode|testoutput|productionlist|raw|highlight|image|figure|toctree|index|only)::"
)


def _rst_starts(text: str) -> Iterator[_Start]:
    lines = text.split("\n")
    styles: list[str] = []
    number = 0
    while number < len(lines):
        title = _rst_title(lines, number)
        if title is not None:
            words, style, after = title
            if style not in styles:
                styles.append(style)
            yield _Start(number, False, styles.index(style) + 1, _rst_plain(words))
            number = after
        elif not lines[number].strip():
            number += 1
        else:
            after, prose = _rst_block(lines, number)
            yield _Start(number, prose)
            number = after


def _rst_title(lines: list[str], number: int) -> tuple[str, str, int] | None:
    """The words of a section title, its style and the line behind it."""

    def line(index: int) -> str:
        return lines[index].rstrip() if index < len(lines) else ""

    first, second, third = line(number), line(number + 1), line(number + 2)
    over = _ADORNMENT.match(first)
    if over and second.strip() and third == first and len(first) >= len(second.strip()):
        return second.strip(), over[1] * 2, number + 3
    under = _ADORNMENT.match(second)
    if (
        under
        and first
        and not first[0].isspace()
        and not _ADORNMENT.match(first)
        and len(second) >= len(first)
        and (number == 0 or not line(number - 1).strip())
    ):
        return first, under[1], number + 2
    return None


def _rst_block(lines: list[str], number: int) -> tuple[int, bool]:
    """Where the block that begins at a line ends, and whether it is prose."""
    if _TABLE.match(lines[number]):
        return _end_of_table(lines, number), False
    indent = _indent(lines[number])
    after = number
    while after < len(lines) and lines[after].strip():
        after += 1
        if _WHOLE.match(lines[number]):
            break
    directive = lines[number].lstrip().startswith(".. ")
    opens = _WHOLE.match(lines[number]) or (lines[after - 1].rstrip().endswith("::") and not directive)
    if not opens:
        return after, True
    # A literal block: everything that stands further in, empty lines included.
    inside = after
    while inside < len(lines) and (not lines[inside].strip() or _indent(lines[inside]) > indent):
        inside += 1
    return inside, False


def _end_of_table(lines: list[str], number: int) -> int:
    grid = lines[number].lstrip().startswith("+")
    after, borders = number, 0
    while after < len(lines):
        borders += bool(_TABLE.match(lines[after]))
        if not lines[after].strip() and (
            grid or borders >= 3 or not any(map(_TABLE.match, lines[after : after + 50]))
        ):
            break
        after += 1
    return after


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _rst_plain(title: str) -> str:
    title = re.sub(r":[\w:.-]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", title)
    return " ".join(re.sub(r"`{1,2}([^`]*)`{1,2}_{0,2}|\*{1,2}", r"\1", title).split())


def _paragraph_lines(lines: list[str]) -> Iterator[int]:
    blank = True
    for number, line in enumerate(lines):
        if line.strip() and blank:
            yield number
        blank = not line.strip()


PARSERS: dict[str, Callable[[str], Parsed]] = {
    ".md": parse_markdown,
    ".markdown": parse_markdown,
    ".mdx": parse_markdown,
    ".rst": parse_rst,
    ".txt": parse_plain,
}
"""By the ending of a file's name."""
