"""Calls of an endpoint: tries with growing pauses, `Retry-After`, a limit of requests a minute."""

import asyncio
import contextlib
import email.utils
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import httpcore

from core.errors import BadSpec, EndpointFailure
from core.language_model.answers import Answer
from core.language_model.connecting import connection_pool
from core.language_model.endpoints import Endpoint

_MOST_BYTES = 4 << 20
"""Of an answer."""

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LONGEST_RETRY_AFTER = 3600.0
_TRIES_TO_REACH = 3
"""Further tries of an endpoint where nothing has ever answered: its address is wrong, or no server runs."""

_SHOWN = 200
_CHARACTERS_PER_TOKEN = 4
"""Where an endpoint does not report its tokens."""

_REFUSED = (401, 403, 404)
"""Statuses that no further try changes: a wrong key, or no such model."""

_OPTIONAL = ("response_format", "max_tokens", "temperature", "seed")
"""Parameters without which a call still makes sense."""

_TOO_MANY = 429
_BUSY = (408, 409, 425, _TOO_MANY)


class NoAnswer(Exception):
    """A call that failed, whatever was tried. Its text is the last reason.

    ``of_request``: the endpoint works, and does not want this request.
    """

    def __init__(self, reason: str, *, of_request: bool = False) -> None:
        super().__init__(reason)
        self.of_request = of_request


@dataclass(frozen=True)
class _Failed:
    """A try without an answer. ``pause``: seconds that the endpoint asks to wait. ``final``: no further try
    helps. ``parameter``: one that the endpoint does not accept. ``no_connection``: nothing listens there."""

    reason: str
    pause: float | None = None
    final: bool = False
    parameter: str | None = None
    busy: bool = False
    no_connection: bool = False


@dataclass
class Limits:
    """Of the calls of one job."""

    concurrency: int
    requests_per_minute: int | None
    max_retries: int
    timeout_seconds: float


@dataclass
class Chat:
    """An endpoint's chat completions. Used by one event loop.

    ``problems`` counts failed tries by reason.
    """

    endpoint: Endpoint
    limits: Limits
    tell: Callable[[str], None] = lambda _: None
    problems: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._url = f"{self.endpoint.url}/chat/completions"
        self._headers: dict[bytes | str, bytes | str] = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "reason-service",
        }
        secret = self.endpoint.headers()
        self._headers.update(secret.items())
        self._secrets = [value.removeprefix("Bearer ") for value in secret.values()]
        self._ending = asyncio.Event()
        self._pool = connection_pool(self.endpoint, self.limits.concurrency)
        self._reached = False  # something has ever answered
        self._next = 0.0  # when the next call may begin
        self._closed_until = 0.0  # the endpoint has asked for a pause
        self._left_out: set[str] = set()  # parameters that the endpoint does not know

    async def __aenter__(self) -> "Chat":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    def end(self) -> None:
        """Begin no call any more, and end the pauses between tries."""
        self._ending.set()

    async def complete(self, request: dict[str, Any]) -> Answer:
        """The answer to a request. Raises `NoAnswer`; `BadSpec` if no call can succeed, and `EndpointFailure`
        if nothing is there."""
        pause, attempt = _FIRST_PAUSE, 0
        while True:
            await self._turn()
            if self._ending.is_set():
                raise NoAnswer("the job was stopped", of_request=True)
            outcome = await self._try(request)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.parameter is not None:
                if outcome.parameter not in self._left_out:
                    self._left_out.add(outcome.parameter)
                    self.tell(
                        f"The endpoint does not accept {outcome.parameter}: the calls go on without it."
                    )
                continue
            self.problems[outcome.reason.split(":")[0]] += 1
            if outcome.no_connection and not self._reached and attempt >= _TRIES_TO_REACH:
                raise EndpointFailure(
                    f"{self.endpoint.url} cannot be reached: {outcome.reason}. Is the server running?"
                )
            if outcome.final or attempt == self.limits.max_retries:
                raise NoAnswer(outcome.reason, of_request=outcome.final)
            # Half of the pause is drawn, so that calls that failed together do not return together.
            drawn = pause * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
            wait = drawn if outcome.pause is None else outcome.pause + 0.1 * drawn
            if outcome.busy:  # no call helps now
                self._closed_until = max(self._closed_until, time.monotonic() + wait)
            await self._sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)
            attempt += 1

    async def _try(self, request: dict[str, Any]) -> "Answer | _Failed":
        """One call. Raises `BadSpec` if no call can succeed."""
        asked = self._accepted(request)
        try:
            async with asyncio.timeout(self.limits.timeout_seconds):
                status, headers, body = await self._post(asked)
        except TimeoutError:
            return _Failed(f"no answer within {self.limits.timeout_seconds:g} s")
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            no_connection = isinstance(error, httpcore.ConnectError | OSError)
            reason = f"connection failed: {str(error) or type(error).__name__}"
            return _Failed(reason, no_connection=no_connection)
        self._reached = True
        if status == 200:
            return _read(request, body) or _Failed("the answer is not a chat completion")
        reason = f"status {status}: {self._without_secrets(_message(body))}"
        if status in _REFUSED:
            raise BadSpec(f"The endpoint {self.endpoint.url} refuses the calls: {reason}")
        if status == 400 and (name := _unknown_parameter(asked, body)):
            return _Failed(reason, parameter=name)
        if status < 500 and status not in _BUSY:
            return _Failed(reason, final=True)  # of this request alone: too long, for example
        return _Failed(reason, pause=_retry_after(headers), busy=status == _TOO_MANY)

    def _without_secrets(self, text: str) -> str:
        """Some endpoints repeat the key that they refuse."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def _turn(self) -> None:
        """Wait until a call may begin."""
        if self.limits.requests_per_minute is not None:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + 60.0 / self.limits.requests_per_minute
            await self._sleep(begin - now)
        while (wait := self._closed_until - time.monotonic()) > 0 and not self._ending.is_set():
            await self._sleep(wait)

    async def _sleep(self, seconds: float) -> None:
        """Until the time is over, or the job ends."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), max(0.0, seconds))

    async def _post(self, asked: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        content = json.dumps(asked, ensure_ascii=False).encode()
        async with self._pool.stream("POST", self._url, headers=self._headers, content=content) as response:
            body = b""
            async for block in response.aiter_stream():
                body += block
                if len(body) > _MOST_BYTES:
                    raise httpcore.RemoteProtocolError(f"an answer of more than {_MOST_BYTES >> 20} MiB")
            headers = {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
            return response.status, headers, body

    def _accepted(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request as this endpoint takes it."""
        asked = {**request, "response_format": {"type": "json_object"}}
        if "max_tokens" in self._left_out:  # reasoning models of OpenAI have another name for it
            asked["max_completion_tokens"] = asked["max_tokens"]
        return {name: value for name, value in asked.items() if name not in self._left_out}


_NOT_KNOWN = (
    "unsupported",
    "unknown",
    "unrecognized",
    "not supported",
    "not permitted",
    "unexpected",
    "extra",
)


def _unknown_parameter(asked: dict[str, Any], body: bytes) -> str | None:
    """The optional parameter of a call that its refusal says is not known."""
    try:
        error = json.loads(body).get("error")
        named = error.get("param") if isinstance(error, dict) else None
    except (ValueError, AttributeError, RecursionError):
        named = None
    text = body.decode("utf-8", "replace").lower()
    if not any(word in text for word in _NOT_KNOWN):
        return None
    there = [name for name in _OPTIONAL if name in asked]
    return named if named in there else next((name for name in there if name in text), None)


def _read(request: dict[str, Any], body: bytes) -> Answer | None:
    """The text and the tokens of a chat completion; None for anything else."""
    try:
        found = json.loads(body)
        text = found["choices"][0]["message"]["content"]
        usage = found.get("usage")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    # Half of a surrogate pair can be written nowhere.
    text = text.encode("utf-8", "replace").decode("utf-8") if isinstance(text, str) else ""
    if isinstance(usage, dict):
        asked, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if _is_count(asked) and _is_count(written):
            return Answer(text, asked, written)
    said = sum(len(message["content"]) for message in request["messages"])
    return Answer(text, said // _CHARACTERS_PER_TOKEN, len(text) // _CHARACTERS_PER_TOKEN, estimated=True)


_MOST_TOKENS = 10**9
"""Of a call. An endpoint that reports more does not count."""


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value <= _MOST_TOKENS


def _message(body: bytes) -> str:
    """What an error says, for people. It is the endpoint's text: cut, in one line."""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
        error = found.get("error", found)
        text = error if isinstance(error, str) else str(error.get("message", text))
    except (ValueError, AttributeError, RecursionError):
        pass
    return " ".join(text.split())[:_SHOWN] or "without a message"


def _retry_after(headers: dict[str, str]) -> float | None:
    """Seconds that the endpoint asks to wait: a number, or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER) if seconds == seconds else None
