"""`Refused`: an answer of the 4xx class, with its status, raised anywhere below the HTTP edge."""

from __future__ import annotations

from edgepack.errors import BadInput


class Refused(BadInput):
    """A request that the hub does not do.

    `status` is the HTTP status; the message names the field or thing at fault.
    """

    def __init__(self, status: int, message: str, *, field: str | None = None, close: bool = False) -> None:
        super().__init__(message, field=field)
        self.status = status
        self.close = close  # the body was not read to its end: the connection cannot be used again
