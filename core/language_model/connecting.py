"""Connections to addresses that were checked: a name that is resolved again could lead elsewhere."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from core.errors import BadSpec
from core.language_model.endpoints import Endpoint

_log = logging.getLogger(__name__)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolve a host once, and connect to one of its permitted addresses. Raises `BadSpec` for others."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._inner, self._endpoint = httpcore.AnyIOBackend(), endpoint

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        usable = [address for address in addresses if self._endpoint.permits(address)]
        if not usable:
            _log.warning("%s leads to %s", host, ", ".join(addresses))
            raise BadSpec(self._endpoint.refusal(host))
        for address in usable[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(usable[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def connection_pool(endpoint: Endpoint, connections: int) -> httpcore.AsyncConnectionPool:
    """A pool that trusts the certificates of the system (SSL_CERT_FILE replaces them)."""
    return httpcore.AsyncConnectionPool(
        ssl_context=ssl.create_default_context(),
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=30.0,
        network_backend=CheckedBackend(endpoint),
    )
