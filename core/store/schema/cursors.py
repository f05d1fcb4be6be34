"""Cursors of keyset-paged lists: the id of the last row that was given."""

from core.errors import BadRequest, Problem
from core.spec.parts.forms import matches


def checked_cursor(cursor: str, form: str) -> str:
    """The cursor, if it has the form of the list's ids. Raises `BadRequest`."""
    if not matches(form, cursor):
        message = f"{cursor!r} is not a next_cursor of this list"
        raise BadRequest(f"cursor: {message}", [Problem("cursor", message)])
    return cursor
