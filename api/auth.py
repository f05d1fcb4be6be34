"""A bearer key makes a Principal. Without any key the service serves this machine only."""

import ipaddress
from dataclasses import dataclass

from fastapi import Request

from core.errors import Forbidden, Unauthorized
from core.store import Store


@dataclass(frozen=True)
class Principal:
    """Who calls. ``key_id`` is None for the owner of a laptop without keys."""

    key_id: str | None
    scopes: frozenset[str]


_LOCAL = Principal(None, frozenset({"read", "submit", "admin"}))
_LOCAL_NAMES = frozenset({"localhost", "testserver"})


def authenticate(request: Request, store: Store, scope: str) -> Principal:
    """The caller, if it may do what ``scope`` says. Raises `Unauthorized` or `Forbidden`.

    Every scope includes reading; ``admin`` includes all.
    """
    if not store.keys.any_active():
        _only_loopback(request)
        return _LOCAL
    scheme, _, secret = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret:
        raise Unauthorized("Send the API key as `Authorization: Bearer KEY` (the client: REASON_API_KEY).")
    key = store.keys.check(secret.strip())
    if key is None:
        raise Unauthorized("This API key is unknown or revoked.")
    scopes = frozenset(key.scopes)
    if scope != "read" and not scopes & {scope, "admin"}:
        raise Forbidden(f"This API key may not {scope}; its scopes are {', '.join(sorted(scopes))}.")
    return Principal(key.id, scopes)


def _only_loopback(request: Request) -> None:
    host = request.client.host if request.client else None
    if host is not None and not is_loopback(host):
        raise Forbidden("Without an API key this service answers its own machine only: `reason keys create`.")
    # A page in a browser can make a name of its own point here; such a call names that name.
    named = request.url.hostname or ""
    if not is_loopback(named):
        raise Forbidden(f"Without an API key this service answers to loopback addresses, not to {named!r}.")


def is_loopback(host: str) -> bool:
    """Whether an address or name means this very machine."""
    if host in _LOCAL_NAMES or host == "testclient":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
