"""Links between documents: their words are what other authors call the section that they lead to."""

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import unquote

from core.data.documents.chunking import Span
from core.data.documents.passage import Link
from core.data.documents.text_blocks import Parsed, plain

# Every repetition is bounded: a text that never closes its brackets must not take quadratic time.
_INLINE = re.compile(
    r"(?<!!)\[(?P<text>[^\[\]\n]{2,200})\]\(\s{0,4}<?(?P<target>[^()\s<>]{1,500})>?[^()\n]{0,200}\)"
)
_ROLE = re.compile(r":(?P<role>doc|ref):`(?P<text>[^`<]{2,200}?)\s*<(?P<target>[^`>]+)>`")
_RST_LABEL = re.compile(r"^\.\. _(?P<label>[^:\n]+):[ \t]*$", re.M)
_EXPLICIT = re.compile(r"\{[^{}#]{0,100}#(?P<id>[\w.:-]{1,200})[^{}]{0,100}\}")
_ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.I)
_PAGE = re.compile(r"\.(?:md|markdown|mdx|rst|txt|html?)$", re.I)
_INDEX = re.compile(r"(?:^|/)(?:index|readme)$", re.I)
_LABEL = "label:"
_WORD = re.compile(r"\w")


def page_name(path: str) -> str:
    """A document's path as links name it: lower case, without the ending, ``index`` and ``README``."""
    return _INDEX.sub("", _PAGE.sub("", path.lower().strip("/")))


def slug(title: str) -> str:
    """The anchor that GitHub, MkDocs and Sphinx make of a heading: lower case, hyphens for spaces."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip())


def links_in(text: str, document: str) -> Iterator[Link]:
    """The links of a text to documents of the same tree. ``document``: the path of the text's own."""
    folder = posixpath.dirname(document)
    for match in _INLINE.finditer(text):
        target = unquote(match["target"])
        words = plain(" ".join(match["text"].split()))
        if _ELSEWHERE.match(target) or not _WORD.search(words):
            continue
        path, _, anchor = target.partition("#")
        if not path:
            page = page_name(document)
        elif path.startswith("/"):
            page = page_name(path)
        else:
            page = page_name(posixpath.normpath(posixpath.join(folder, path)))
        yield Link(words, f"{page}#{slug(anchor)}" if anchor else page)
    for match in _ROLE.finditer(text):
        target, words = match["target"].strip(), plain(" ".join(match["text"].split()))
        if match["role"] == "ref":
            yield Link(words, _LABEL + target.lower())
        elif target.startswith("/"):
            yield Link(words, page_name(target))
        else:
            yield Link(words, page_name(posixpath.normpath(posixpath.join(folder, target))))


def anchors_of(parsed: Parsed, spans: list[Span], document: str) -> list[tuple[str, ...]]:
    """What links to each of a document's passages may name, in the order of the passages."""
    page = page_name(document)
    found: list[list[str]] = [[] for _ in spans]
    if found:
        found[0].append(page)
    labels = [(match.end(), match["label"].strip().lower()) for match in _RST_LABEL.finditer(parsed.text)]
    waiting = 0
    for number, span in enumerate(spans):
        for heading in span.headings:
            explicit = _EXPLICIT.search(parsed.text[heading.start : heading.end])
            anchor = explicit["id"].lower() if explicit else slug(heading.path[-1])
            found[number].append(f"{page}#{anchor}")
            while waiting < len(labels) and labels[waiting][0] <= heading.start:
                end, label = labels[waiting]
                waiting += 1
                between = parsed.text[end : heading.start]
                if not _RST_LABEL.sub("", between).strip():
                    found[number].append(_LABEL + label)
    return [tuple(names) for names in found]
