"""The socket that an agent listens on, and why there is none."""

from __future__ import annotations

import socket

from edgepack.errors import BadInput

_BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free. Raises BadInput that says why there is none."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.bind(address)
            found.listen(_BACKLOG)
            found.setblocking(False)
        except OSError:
            found.close()
            raise
    except OSError as error:
        raise BadInput(_why_not_bound(host, port, error), field="port") from error
    return found


def _why_not_bound(host: str, port: int, error: OSError) -> str:
    text = str(error)
    if "Address already in use" in text:
        return f"port {port} on {host} is in use by another program: choose another with --port"
    if "Permission denied" in text:
        return f"port {port} on {host} needs rights this user lacks: choose one above 1023 with --port"
    if "Cannot assign" in text or "not known" in text:
        return f"'{host}' is no address of this machine: choose another with --host"
    return f"cannot listen on {host}, port {port}: {text}"
