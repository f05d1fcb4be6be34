"""Sends webhooks: signed as Standard Webhooks says, to public addresses, a few at once."""

import base64
import hashlib
import hmac
import logging
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpcore

from core.errors import Unavailable
from core.settings import Settings
from core.spec.requests import SECRET_PREFIX, is_public_address
from core.store.webhooks import Outgoing, WebhookStore

_log = logging.getLogger(__name__)

_AT_ONCE = 8
_SECONDS = 15.0
_MOST_ANSWER_BYTES = 65_536
_TIDY_SECONDS = 3600.0


def sign(secret: str, message_id: str, timestamp: int, body: str) -> str:
    """The value of ``webhook-signature`` (https://www.standardwebhooks.com): ``v1,`` and base64."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.{body}".encode()
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


class _PublicOnly(httpcore.NetworkBackend):
    """Connects to the address that it has checked: a name that is resolved again could lead elsewhere."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

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
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        public = [address for address in addresses if is_public_address(address)]
        if not public:
            raise httpcore.ConnectError(
                f"{host} is a private address ({', '.join(addresses)}); set REASON_WEBHOOK_PRIVATE_ADDRESSES "
                "to allow it"
            )
        return self._inner.connect_tcp(public[0], port, timeout, local_address, socket_options)


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
    timeout = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    backend = httpcore.SyncBackend() if private_addresses else _PublicOnly()
    end = time.monotonic() + seconds
    with (
        httpcore.ConnectionPool(network_backend=backend) as pool,
        pool.stream(
            "POST",
            outgoing.url,
            headers=headers,
            content=outgoing.body.encode(),
            extensions={"timeout": timeout},
        ) as answer,
    ):
        read = 0
        for block in answer.iter_stream():  # some servers see a reset where nobody reads their answer
            read += len(block)
            if read > _MOST_ANSWER_BYTES or time.monotonic() > end:
                break
        return int(answer.status)


class Courier:
    """A thread of a worker that sends what is due."""

    def __init__(self, settings: Settings, store: WebhookStore) -> None:
        self._settings, self._store = settings, store
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook")
        self._tidied = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is being sent is finished; the rest waits for another worker."""
        self._done.set()
        self._thread.join(_SECONDS)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        while not self._done.wait(self._settings.sweep_seconds):
            try:
                while not self._done.is_set() and self.round():
                    pass
            except Unavailable as error:
                _log.warning("Webhooks wait for the database: %s", error)
            except Exception:  # noqa: BLE001 - without its courier a worker sends nothing more
                _log.exception("Webhooks could not be sent; it is tried again")

    def round(self) -> int:
        """Send what is due now, at most a few. Returns how many."""
        if time.monotonic() - self._tidied > _TIDY_SECONDS:
            self._store.forget_old()
            self._tidied = time.monotonic()
        due = self._store.take(_AT_ONCE, private=self._settings.private_jobs)
        list(self._pool.map(self._send, due))
        return len(due)

    def _send(self, outgoing: Outgoing) -> None:
        status, problem = None, None
        try:
            status = post(outgoing, private_addresses=self._settings.webhook_private_addresses)
        except (httpcore.TimeoutException, TimeoutError):
            problem = f"No answer within {_SECONDS:g} s."
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"[:500]
        if problem or (status is not None and not 200 <= status < 300):
            _log.warning("Webhook %s, try %d: %s", outgoing.id, outgoing.attempt, problem or status)
        self._store.record(outgoing.id, status=status, error=problem)
