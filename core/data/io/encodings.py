"""Guesses of a text file's encoding, offered in messages and never applied by themselves."""

import re
from collections.abc import Callable
from pathlib import Path

_LOOKED_AT = 1 << 18
_WESTERN = {
    "cp1252",
    "latin_1",
    "iso8859_15",
    "cp1250",
    "cp1254",
    "cp1257",
    "cp1258",
    "iso8859_9",
    "mac_roman",
}


def suggest_encoding(head: bytes) -> str | None:
    """The encoding that bytes which are not UTF-8 are most likely in; None where nothing fits."""
    from charset_normalizer import from_bytes

    head = head[:_LOOKED_AT]
    best = from_bytes(head).best()
    likely = {best.encoding, *best.could_be_from_charset} if best is not None else set()
    # Western code pages differ in a few characters, and Windows' own is by far the most frequent one.
    if (not likely or likely & _WESTERN) and _decodes(head, "cp1252"):
        return "cp1252"
    return best.encoding if best is not None else None


def _decodes(head: bytes, encoding: str) -> bool:
    try:
        head.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


_ESCAPED = re.compile("[\udc80-\udcff]")


class Undecodable:
    """Finds texts of a file that its encoding could not decode, and says so in one sentence."""

    def __init__(self, path: Path, encoding: str | None, read_head: Callable[[], bytes]) -> None:
        self._path, self._encoding, self._read_head = path, encoding, read_head
        self._sentence: str | None = None

    def problem(self, *texts: object) -> str | None:
        """The sentence, if any of the texts holds bytes that were not decoded (``surrogateescape``)."""
        if any(isinstance(text, str) and not text.isascii() and _ESCAPED.search(text) for text in texts):
            self._sentence = self._sentence or self._say()
            return self._sentence
        return None

    def _say(self) -> str:
        if self._encoding is not None:
            return f"{self._path.name} is not text in the encoding {self._encoding}"
        found = suggest_encoding(self._read_head())
        remedy = f"it looks like {found}: set `encoding: {found}`" if found else "set its `encoding`"
        return f"{self._path.name} is not UTF-8; {remedy}"
