"""JSON files that hold one long list of objects, read one object at a time.

ijson would do, but it keeps the path of every level: a hundred thousand opening brackets took all the memory
of a machine with 24 GiB.
"""

import json
from collections.abc import Iterator
from typing import IO, Any

_BLOCK = 1 << 18
_LONGEST = 64 << 20
_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


class _Text:
    """A text that is read as far as it is needed."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._buffer, self._at = file, "", 0

    def _more(self, size: int = _BLOCK) -> bool:
        block = self._file.read(size)
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        return bool(block)

    def next(self) -> str:
        """The next character that is no white space, or nothing at the end. It stays where it is."""
        while True:
            while self._at < len(self._buffer):
                if self._buffer[self._at] not in _SPACE:
                    return self._buffer[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        if self.next() not in expected or not self.next():
            raise ValueError(f"{' or '.join(expected)} is needed where {self.next() or 'the end'} stands")
        self._at += 1

    def value(self) -> Any:
        """The value that begins here. Raises `ValueError` for what is none, or is nested too deeply."""
        self.next()
        while True:
            try:
                found, end = _DECODER.raw_decode(self._buffer, self._at)
                # A number that ends with the buffer may go on behind it.
                if end < len(self._buffer):
                    self._at = end
                    return found
                size = end - self._at
                if not self._more(max(_BLOCK, size)):
                    self._at = size
                    return found
            except RecursionError as error:
                raise ValueError("nested too deeply") from error
            except ValueError as error:
                size = len(self._buffer) - self._at
                if size > _LONGEST:
                    raise ValueError(f"a value is longer than {_LONGEST >> 20} MiB, or broken") from error
                if not self._more(max(_BLOCK, size)):  # twice as much each time: no text is parsed often
                    raise


def read_list(file: IO[str]) -> Iterator[Any]:
    """The values of a list, or the objects of all lists that stand in an object. Raises `ValueError`."""
    text = _Text(file)
    if text.next() == "{":
        yield from _lists_of_object(text)
    else:
        yield from _items(text)
    if text.next():
        raise ValueError("text stands behind its end")


def _items(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.next() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        ended = text.next() == "]"
        text.take(",]")
        if ended:
            return


def _lists_of_object(text: _Text) -> Iterator[Any]:
    text.take("{")
    any_list = False
    while text.next() == '"':
        text.value()
        text.take(":")
        if text.next() == "[":
            # A list of words or numbers says something of the others.
            for item in _items(text):
                if isinstance(item, dict):
                    any_list = True
                    yield item
        else:
            text.value()
        if text.next() == ",":
            text.take(",")
    text.take("}")
    if not any_list:
        raise ValueError("it holds no list of objects")
