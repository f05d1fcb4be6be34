"""The socket that the server listens on."""

import socket


def open_listener(host: str, port: int) -> socket.socket:
    """Bind a TCP socket. Raises `OSError`.

    The protocol is named: asyncio sets TCP_NODELAY only on sockets whose protocol is IPPROTO_TCP, and without
    it each answer on a kept-alive connection waits 40 ms for the client's delayed acknowledgement.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
