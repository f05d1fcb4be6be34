"""Text that every store, file and response can hold."""

import re
from typing import Any

_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""Replace surrogates and NUL by their escapes: ``\udce9``, ``\x00``.

    UTF-8 has no surrogates, and PostgreSQL's JSON has no NUL.
    """
    if _UNWRITABLE.search(text) is None:
        return text
    return _UNWRITABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def escaped_json(value: Any) -> Any:
    """Apply `escaped` to every key and every text of a JSON value. Returns a new value."""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, dict):
        return {escaped_json(name): escaped_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [escaped_json(item) for item in value]
    return value
