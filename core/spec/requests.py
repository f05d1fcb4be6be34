"""Requests for API keys and webhooks, over HTTP or on the command line."""

import base64
import binascii
import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

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


SECRET_PREFIX = "whsec_"  # noqa: S105 - the form of a secret, by Standard Webhooks

_STATES = "waiting|queued|running|paused|succeeded|failed|cancelled"

WEBHOOK_EVENT = rf"^(\*|(job|pipeline)\.(\*|{_STATES}))$"


def _url(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be plain ASCII: write other characters as %XX, and names of hosts as xn--...")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a user name or password: the signature proves who sends")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("has a port that is no port") from error
    return text


def _secret(text: str) -> str:
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ValueError("must be whsec_ and base64") from error
    if not text.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError("must be whsec_ and the base64 of 24 to 64 bytes")
    return text


class NewWebhook(Strict):
    """The request for a new webhook."""

    url: Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_url)] = Field(
        description="Where events are sent by POST."
    )
    events: list[Annotated[str, Field(pattern=WEBHOOK_EVENT)]] = Field(
        ["job.succeeded", "job.failed", "pipeline.succeeded", "pipeline.failed"],
        min_length=1,
        max_length=32,
        description="job.STATE, pipeline.STATE, job.*, pipeline.* or *.",
    )
    secret: Annotated[str, Field(max_length=200), AfterValidator(_secret)] | None = Field(
        None, description="Key of the signatures: whsec_ and base64. Default: a random one."
    )


_GLOBAL = ipaddress.ip_network("2000::/3")
"""What of IPv6 is given out for the public internet; all else is local, or some translation of IPv4."""

_NOT_PUBLIC = [
    ipaddress.ip_network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3ffe::/16", "3fff::/20")
]


def is_public_address(text: str) -> bool:
    """Whether an IP address is one of the public internet. Raises `ValueError` for what is none."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        return address in _GLOBAL and not any(address in network for network in _NOT_PUBLIC)
    return address.is_global and not address.is_multicast
