"""The request for a new API key, over HTTP or on the command line."""

from typing import Literal

from pydantic import Field

from core.spec.parts.base import Strict

KeyScope = Literal["read", "submit", "admin"]


class NewKey(Strict):
    """The request for a new API key."""

    name: str = Field(
        min_length=1, max_length=200, description="Owner or purpose of the key, shown in lists of keys."
    )
    scopes: list[KeyScope] = Field(
        ["read", "submit"],
        min_length=1,
        max_length=3,
        description="read: read everything. submit: also submit jobs, datasets and models, and cancel, "
        "pause, resume and retry the key's own jobs. admin: also change all jobs, and create "
        "and revoke keys.",
    )
