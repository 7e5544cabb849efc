"""Bodies packed with gzip or deflate (RFC 9110 §8.4.1), both ways. Nothing unpacks to more than a body may have."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import replace

from edge_agent.doors.seam import Answer, BodyTooLarge, Call
from edge_agent.http.http1 import size_of
from edge_agent.pipelines.inference import WrongMediaType
from edgepack.errors import BadInput

_GZIP, _ZLIB, _BARE = 31, 15, -15  # zlib's window bits
_FAST = 1  # level: a device's CPU is worth more than bytes on a local network


def body_of(call: Call) -> bytes | bytearray:
    """The body, unpacked. Raises BadInput for one that is damaged, BodyTooLarge, WrongMediaType for another coding."""
    coding = call.header("content-encoding").strip().lower()
    if coding in ("", "identity"):
        return call.body
    if coding not in ("gzip", "x-gzip", "deflate"):
        said = f"content encoding '{coding[:40]}' is not known here: send gzip, deflate or none"
        raise WrongMediaType(said, field="Content-Encoding")
    bits = _GZIP if coding != "deflate" else _ZLIB if call.body[:1] and call.body[0] & 0x0F == zlib.DEFLATED else _BARE
    unpacker = zlib.decompressobj(bits)
    try:
        body = unpacker.decompress(call.body, call.most_bytes)
    except zlib.error as error:
        raise BadInput(f"the body is not {coding}: {error}", field="Content-Encoding") from error
    if unpacker.unconsumed_tail:
        raise BodyTooLarge(f"the body unpacks to more than {size_of(call.most_bytes)}: send fewer rows at once")
    if not unpacker.eof:
        raise BadInput(f"the body is cut short: its {coding} stream does not end", field="Content-Encoding")
    if unpacker.unused_data:  # of a second stream we would lose the rows, of junk the reason
        said = f"the body goes on behind the end of its {coding} stream: pack it as one stream"
        raise BadInput(said, field="Content-Encoding")
    return body


def packed(call: Call, answer: Answer) -> Answer:
    """The answer as the client asks for it: packed where `Accept-Encoding` is one coding and nothing else.

    HTTP libraries list all that they can read by themselves; that is no wish, and packing costs more time than the
    model.
    """
    asked = call.header("accept-encoding").strip().lower()
    if asked == "gzip":
        body = gzip.compress(answer.join(), _FAST, mtime=0)
    elif asked == "deflate":
        body = zlib.compress(answer.join(), _FAST)
    else:
        return answer
    return replace(answer, body=body, headers=(*answer.headers, ("Content-Encoding", asked)))
