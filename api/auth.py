"""Authentication by bearer key, or by the session of a browser that has signed in with one. Without any key
the service answers only calls from its own machine."""

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from fastapi import Request

from api.throttle import Throttle
from core.errors import Forbidden, TooManyRequests, Unauthorized
from core.settings import Settings
from core.store import Store
from core.store.schema.access import EVERYTHING, Access
from core.store.schema.tables import ApiKey

Scope = Literal["read", "submit", "admin"]


@dataclass(frozen=True)
class Principal:
    """The caller. ``key_id`` is None if the service has no keys."""

    key_id: str | None
    scopes: frozenset[str]
    access: Access  # whose rows it may see and change

    def may(self, scope: Scope) -> bool:
        """Every scope includes reading; ``admin`` includes all."""
        return scope == "read" or bool(self.scopes & {scope, "admin"})


_LOCAL = Principal(None, frozenset({"read", "submit", "admin"}), EVERYTHING)
_LOCAL_NAMES = frozenset({"localhost", "testserver"})

SESSION_COOKIE = "reason_session"
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Authenticator:
    """Identifies the caller, before the body of a request is read."""

    def __init__(self, store: Store, settings: Settings, throttle: Throttle | None = None) -> None:
        self._store, self._private = store, settings.private_jobs
        self._throttle = throttle or Throttle()

    def authenticate(self, request: Request, scope: Scope) -> Principal:
        """Return the caller, if its key has the scope.

        Raises `Unauthorized`, `Forbidden`, or `TooManyRequests` for an address that has sent too many wrong
        keys.
        """
        if not self._store.keys.any_active():
            _only_loopback(request)
            _only_same_origin(request)
            return _LOCAL
        caller = self._principal(self._key(request))
        if not caller.may(scope):
            raise Forbidden(
                f"This call needs the scope {scope}; the API key has {', '.join(sorted(caller.scopes))}."
            )
        return caller

    def _key(self, request: Request) -> ApiKey:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secret:
            return self._check(request, secret.strip())
        if token := request.cookies.get(SESSION_COOKIE):
            _only_same_origin(request)
            if key := self._store.sessions.key_of(token):
                return key
            raise Unauthorized("This session is over: sign in again.")
        raise Unauthorized(
            "Send the API key in the header `Authorization: Bearer KEY` (client: set REASON_API_KEY)."
        )

    def recheck(self, request: Request) -> Principal:
        """The caller of a request that `authenticate` has let in, with the rights that it has now.

        Raises `Unauthorized` when its key was revoked, or when it came without one and keys exist by now.
        """
        before: Principal = request.state.principal
        if before.key_id is None:
            if self._store.keys.any_active():
                raise Unauthorized("This service now requires an API key.")
            return before
        key = self._store.keys.active(before.key_id)
        if key is None:
            raise Unauthorized("This API key was revoked.")
        return self._principal(key)

    def _principal(self, key: ApiKey) -> Principal:
        admin = "admin" in key.scopes
        access = Access(key.id, sees_all=admin or not self._private, changes_all=admin)
        return Principal(key.id, frozenset(key.scopes), access)

    def check_form(self, request: Request, secret: str) -> ApiKey:
        """The key that somebody types into a page. Raises `Unauthorized`, `Forbidden` for a page of another
        site, and `TooManyRequests` after too many wrong keys."""
        _only_same_origin(request)
        return self._check(request, secret)

    def _check(self, request: Request, secret: str) -> ApiKey:
        address = request.client.host if request.client else ""
        if seconds := self._throttle.wait_seconds(address):
            raise TooManyRequests(f"Too many wrong API keys from {address}. Retry in {seconds} s.", seconds)
        key = self._store.keys.check(secret)
        if key is None:
            self._throttle.failed(address)
            raise Unauthorized("This API key is unknown or revoked.")
        return key


def _only_loopback(request: Request) -> None:
    host = request.client.host if request.client else None
    if host is not None and not is_loopback(host):
        raise Forbidden(
            "Without an API key this service answers only its own machine: `reason keys create NAME`."
        )
    # A page in a browser can make a name of its own point here; such a call names that name.
    named = request.url.hostname or ""
    if not is_loopback(named):
        raise Forbidden(
            f"Without an API key this service answers only to loopback addresses, not to {named!r}."
        )


def _only_same_origin(request: Request) -> None:
    """Refuse what a page of another site makes a browser send: a browser adds the cookie, or is on this
    machine, whoever asks. Browsers say where a request comes from; programs do not, and have no cookie."""
    if request.method in _READING:
        return
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        same = site in ("same-origin", "none")
    else:
        same = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not same:
        raise Forbidden("This call comes from a page of another site.")


def is_loopback(host: str) -> bool:
    """Whether an address or name is a loopback address of this machine."""
    if host in _LOCAL_NAMES or host == "testclient":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
