"""Sends webhooks: signed as Standard Webhooks says, to public addresses, a few at once."""

import base64
import hashlib
import hmac
import logging
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from core.errors import Unavailable
from core.settings import Settings
from core.spec.requests import SECRET_PREFIX, is_public_address
from core.store.webhooks import MOST_OF_ONE, Outgoing, WebhookStore

_log = logging.getLogger(__name__)

_AT_ONCE = 8
_SECONDS = 15.0
"""Of one try, from the name of the host to the end of the answer."""

_MOST_ANSWER_BYTES = 65_536
_TIDY_SECONDS = 3600.0


def sign(secret: str, message_id: str, timestamp: int, body: str) -> str:
    """The value of ``webhook-signature`` (https://www.standardwebhooks.com): ``v1,`` and base64."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.{body}".encode()
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class _Deadline:
    """The end of a try. A receiver that sends a byte now and then gains no time by it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds. Raises httpcore's `ReadTimeout` when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("The time of the try is over")
        return left


class _Stream(httpcore.NetworkStream):
    """Every operation ends with the try."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left())

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, self._deadline.left())
        return _Stream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Connects to the address that it has checked: a name that is resolved again could lead elsewhere."""

    def __init__(self, deadline: _Deadline, *, private_addresses: bool) -> None:
        self._inner, self._deadline, self._private = httpcore.SyncBackend(), deadline, private_addresses

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        usable = [address for address in addresses if self._private or is_public_address(address)]
        if not usable:
            _log.warning("Webhook: %s leads to %s", host, ", ".join(addresses))  # not for the one who asks
            raise httpcore.ConnectError(
                f"{host} leads to a private address: REASON_WEBHOOK_PRIVATE_ADDRESSES allows it"
            )
        for address in usable[:-1]:
            try:
                return self._connect(address, port, len(usable), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(usable[-1], port, 1, local_address, socket_options)

    def _connect(
        self, address: str, port: int, shared: int, local: str | None, options: Iterable[Any] | None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left() / shared
        return _Stream(self._inner.connect_tcp(address, port, left, local, options), self._deadline)


def post(outgoing: Outgoing, *, private_addresses: bool, seconds: float = _SECONDS) -> int:
    """The status of the receiver's answer. Raises httpcore's errors, `OSError` and `ValueError`."""
    timestamp = int(time.time())
    headers: dict[bytes | str, bytes | str] = {
        "host": urlsplit(outgoing.url).netloc,
        "content-type": "application/json",
        "user-agent": "reason-webhooks",
        "webhook-id": outgoing.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(outgoing.secret, outgoing.id, timestamp, outgoing.body),
    }
    backend = _Backend(_Deadline(seconds), private_addresses=private_addresses)
    with (
        httpcore.ConnectionPool(network_backend=backend) as pool,
        pool.stream("POST", outgoing.url, headers=headers, content=outgoing.body.encode()) as answer,
    ):
        read = 0
        for block in answer.iter_stream():  # some servers see a reset where nobody reads their answer
            read += len(block)
            if read > _MOST_ANSWER_BYTES:
                break
        return int(answer.status)


class Courier:
    """A thread of a worker that sends what is due, each delivery in a thread of its own.

    They are daemons: a worker that ends waits for none. What was being sent is sent again by another.
    """

    def __init__(self, settings: Settings, store: WebhookStore) -> None:
        self._settings, self._store = settings, store
        self._done, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._sending: Counter[str] = Counter()  # by webhook
        self._counting = threading.Lock()
        self._tidied = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._done.set()
        self._wake.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self.begin()
            except Unavailable as error:
                _log.warning("Webhooks wait for the database: %s", error)
            except Exception:  # noqa: BLE001 - without its courier a worker sends nothing more
                _log.exception("Webhooks could not be sent; it is tried again")
            # A delivery that ends makes room for another: then it looks again at once.
            self._wake.wait(self._settings.sweep_seconds)
            self._wake.clear()

    def begin(self) -> list[threading.Thread]:
        """Start to send what is due now, as far as there is room."""
        if time.monotonic() - self._tidied > _TIDY_SECONDS:
            self._store.forget_old()
            self._tidied = time.monotonic()
        with self._counting:
            room = _AT_ONCE - self._sending.total()
            busy = [hook for hook, count in self._sending.items() if count >= MOST_OF_ONE]
        if room <= 0:
            return []
        threads = []
        for outgoing in self._store.take(room, private=self._settings.private_jobs, busy=busy):
            with self._counting:
                self._sending[outgoing.webhook_id] += 1
            threads.append(
                threading.Thread(target=self._send, args=(outgoing,), name=outgoing.id, daemon=True)
            )
            threads[-1].start()
        return threads

    def _send(self, outgoing: Outgoing) -> None:
        try:
            status, problem = self._try(outgoing)
            if problem or (status is not None and not 200 <= status < 300):
                _log.warning("Webhook %s, try %d: %s", outgoing.id, outgoing.attempt, problem or status)
            self._store.record(outgoing, status=status, error=problem)
        except Unavailable as error:
            _log.warning("Webhook %s was sent and is sent again: %s", outgoing.id, error)
        finally:
            with self._counting:
                self._sending[outgoing.webhook_id] -= 1
            self._wake.set()

    def _try(self, outgoing: Outgoing) -> tuple[int | None, str | None]:
        try:
            return post(outgoing, private_addresses=self._settings.webhook_private_addresses), None
        except (httpcore.TimeoutException, TimeoutError):
            return None, f"No answer within {_SECONDS:g} s."
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as error:
            return None, f"{type(error).__name__}: {error}"[:500]
        except Exception as error:  # noqa: BLE001 - a try that is not recorded would be made for ever
            _log.exception("Webhook %s", outgoing.id)
            return None, f"It cannot be sent: {type(error).__name__}"
