"""An API key to be made, over HTTP or on the command line."""

from typing import Literal

from pydantic import Field

from core.spec.parts.base import Strict

KeyScope = Literal["read", "submit", "admin"]


class NewKey(Strict):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=200, description="Whose key it is, for lists of keys.")
    scopes: list[KeyScope] = Field(
        ["read", "submit"],
        min_length=1,
        max_length=3,
        description="read: look. submit: also submit jobs and datasets, and change the key's own jobs. "
        "admin: also change all jobs, and make and revoke keys.",
    )
