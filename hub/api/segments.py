"""PUT /segments: a sealed segment comes home, exactly once.

The order matters: body hashed → the name known? (receipt or 409) → every frame and block checked → file durable → row
durable → receipt. A crash anywhere before the row leaves at most a file that the next attempt writes again.
"""

from __future__ import annotations

import threading

from bundle.pipeline import dns_label
from edgepack.errors import BadInput, NotTrusted
from fleet import wire
from fleet.messages import Receipt
from hub.calls import Answer, Call, read_chunks, refuse_larger
from hub.ingest import SegmentName, Summary, check_segment
from hub.refusal import Refused
from hub.segment_files import Received
from hub.store import segments
from oci.digest import Digest

# bounds the memory of ingest: this many segments are checked at once, whatever the number of threads
_CHECKED_AT_ONCE = threading.BoundedSemaphore(4)


def put_segment(call: Call) -> Answer:
    """Take one segment of the asking device."""
    if call.path["device"] not in (call.device, call.caller.name):
        raise Refused(
            403, f"device '{call.caller.name}' may not write segments of '{call.path['device']}'", field="device"
        )
    name = SegmentName.parse(call.device, call.path["epoch"], call.path["number"])
    digest, pipeline = _headers(call)
    limit = call.hub.config.segment_limit
    refuse_larger(call.request, limit)
    with call.hub.segments.receive(read_chunks(call.request.stream), limit) as received:
        if received.digest != digest:
            raise Refused(400, f"{name} is not {digest}: {received.size} bytes came with another digest; send it again")
        return _known(call, name, digest) or _keep(call, name, pipeline, received)


def _headers(call: Call) -> tuple[str, str]:
    if call.request.mimetype != wire.SEGMENT_TYPE:
        raise Refused(415, f"the body is '{call.request.mimetype or 'of no type'}': expected {wire.SEGMENT_TYPE}")
    try:
        digest = str(Digest.parse(call.request.headers.get(wire.SEGMENT_DIGEST, "")))
    except NotTrusted as error:
        raise Refused(400, f"header {wire.SEGMENT_DIGEST}: {error}", field=wire.SEGMENT_DIGEST) from error
    try:
        pipeline = dns_label(call.request.headers.get(wire.SEGMENT_PIPELINE, ""))
    except BadInput as error:
        raise Refused(400, f"header {wire.SEGMENT_PIPELINE}: {error}", field=wire.SEGMENT_PIPELINE) from error
    return digest, pipeline


def _known(call: Call, name: SegmentName, digest: str) -> Answer | None:
    with call.hub.database.read() as db:
        row = segments.find(db, name.device, name.epoch, name.number)
    if row is None:
        return None
    if row.digest != digest:
        raise Refused(409, f"{name} came already as {row.digest}, not as {digest}: both cannot be true")
    return Answer(200, Receipt(name.device, name.epoch, name.number, digest, row.rows))


def _keep(call: Call, name: SegmentName, pipeline: str, received: Received) -> Answer:
    with _CHECKED_AT_ONCE:
        summary = check_segment(name, received.path.read_bytes())
    _refuse_clash(call, name, pipeline, summary)
    call.hub.segments.keep(received, name.device, name.epoch, name.number)
    if not _enter(call, name, pipeline, summary, received):
        # the same segment, or another with its name or rows, came in while this one was written
        return _lost_race(call, name, received.digest)
    return Answer(201, Receipt(name.device, name.epoch, name.number, received.digest, summary.rows))


def _refuse_clash(call: Call, name: SegmentName, pipeline: str, summary: Summary) -> None:
    with call.hub.database.read() as db:
        clash = segments.find_clash(db, name.device, name.epoch, pipeline, summary.first_seq, summary.end_seq)
    if clash is not None and clash.number != name.number:
        raise Refused(
            409,
            f"{name} has rows {summary.first_seq} to {summary.end_seq - 1} of '{pipeline}', segment {clash.number} "
            f"has rows {clash.first_seq} to {clash.end_seq - 1} of '{clash.pipeline}': "
            "an epoch holds each row of one pipeline once",
        )


def _enter(call: Call, name: SegmentName, pipeline: str, summary: Summary, received: Received) -> bool:
    """Enter the segment unless one of its name, or with its rows, is there; both are looked up in the same
    transaction.
    """
    with call.hub.database.write() as db:
        there = segments.find(db, name.device, name.epoch, name.number)
        clash = segments.find_clash(db, name.device, name.epoch, pipeline, summary.first_seq, summary.end_seq)
        if there is not None or clash is not None:
            return False
        segments.add(
            db,
            device=name.device,
            epoch=name.epoch,
            number=name.number,
            pipeline=pipeline,
            digest=received.digest,
            size=received.size,
            first_seq=summary.first_seq,
            rows=summary.rows,
            end_seq=summary.end_seq,
            received_at=int(call.hub.clock()),
        )
    return True


def _lost_race(call: Call, name: SegmentName, digest: str) -> Answer:
    try:
        known = _known(call, name, digest)
    except Refused:
        call.hub.segments.drop(name.device, name.epoch, name.number, digest)
        raise
    if known is None:
        call.hub.segments.drop(name.device, name.epoch, name.number, digest)
        raise Refused(409, f"{name} holds rows that came in another segment: an epoch holds each row once")
    return known
