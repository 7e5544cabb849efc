"""Names on the wire that device and hub must agree on and that stand in no message."""

from __future__ import annotations

SEGMENT_TYPE = (
    "application/vnd.edgepack.segment.v1"  # media type of an uploaded segment: the frames of durable.segment_log
)
SEGMENT_DIGEST = "X-Edgepack-Digest"  # header of a segment: `sha256:<hex>` of the body
SEGMENT_PIPELINE = "X-Edgepack-Pipeline"  # header of a segment: the pipeline whose rows it holds
SEGMENT_LIMIT = 128 << 20  # bytes of one segment; a larger one is refused with 413


def segment_path(device: str, epoch: str, number: int) -> str:
    """Where a device puts one segment."""
    return f"/api/v1/segments/{device}/{epoch}/{number}"


def sequence_tag(sequence: int) -> str:
    """The ETag of an assignment: its sequence number in quotes."""
    return f'"{sequence}"'
