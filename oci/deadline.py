"""Connections whose answers end, however the bytes come.

A socket's timeout bounds the wait for the next byte. Whoever sends one a second keeps a reader for as long as he likes:
with his headers, with an error's body, with the length of a chunk. Here the timeout of a request is how long its whole
answer may be waited for, and each read of the socket gets what is left of it. A large file earns more of it by the rate
at which it comes, so that it takes as long as it must and never trickles.
"""

from __future__ import annotations

import io
import socket
import time
from functools import partial
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import urllib3

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def pools_with_deadline(silent_s: float, slowest_bytes_s: float | None = None, **settings: Any) -> urllib3.PoolManager:
    """urllib3's pools, but that the `total` or `read` timeout of a request ends its answer: line, headers and body.

    The other side may be silent for `silent_s` of that, and take as long to receive what is sent; the `connect` timeout
    is for connecting alone. With `slowest_bytes_s` the bytes that come give time back at this rate, up to that timeout.
    `settings` are those of a `PoolManager`.
    """
    made = urllib3.PoolManager(**settings)
    pools = {"http": urllib3.HTTPConnectionPool, "https": urllib3.HTTPSConnectionPool}
    made.pool_classes_by_scheme = {scheme: _ending(pool, silent_s, slowest_bytes_s) for scheme, pool in pools.items()}
    return made


def _ending(
    pool: type[urllib3.HTTPConnectionPool], silent_s: float, slowest_bytes_s: float | None
) -> type[urllib3.HTTPConnectionPool]:
    """A kind of pool with such connections."""

    class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]
        response_class = partial(_EndingResponse, silent_s, slowest_bytes_s)

        def send(self, data: Any) -> None:
            if self.sock is not None:  # connected: urllib3 leaves the timeout of that in place while it sends
                self.sock.settimeout(silent_s)
            super().send(data)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})


class _EndingResponse(HTTPResponse):
    """An answer that is waited for no longer than the timeout that the socket has as it begins."""

    def __init__(
        self, silent_s: float, slowest_bytes_s: float | None, sock: socket.socket, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Received(self.fp.detach(), sock, silent_s, slowest_bytes_s))


class _Received(io.RawIOBase):
    """What comes through a socket while there is time to wait for it; after that TimeoutError. What its reader does
    between two reads costs none.
    """

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, silent_s: float, slowest_bytes_s: float | None) -> None:
        self._raw, self._sock, self._silent_s, self._slowest_bytes_s = raw, sock, silent_s, slowest_bytes_s
        timeout_s = sock.gettimeout()
        self._left_s = self._most_s = float("inf") if timeout_s is None else timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        if self._left_s <= 0:
            raise TimeoutError("the time for this answer is over")
        self._sock.settimeout(min(self._left_s, self._silent_s))
        begun = time.monotonic()
        count = self._raw.readinto(buffer)
        self._left_s -= time.monotonic() - begun
        if count and self._slowest_bytes_s:
            self._left_s = min(self._most_s, self._left_s + count / self._slowest_bytes_s)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
