"""The rules of an assignment: what is asked for must be published, and have a manifest for the device's target."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from edgepack.errors import BadInput, NotTrusted
from fleet.messages import Assigned, Assignment, PipelineView
from fleet.wire import sequence_tag
from hub.refusal import Refused
from hub.store import assignments, pipelines
from oci.digest import Digest


def assignment_of(db: Connection, device: str, check_in_s: float) -> Assignment:
    """What a device should run; sequence 0 and nothing before the first assignment."""
    sequence, assigned = assignments.current(db, device)
    return Assignment(device, sequence, assigned, check_in_s)


def assign(db: Connection, device: Row[Any], asked: dict[str, str], if_match: str | None) -> None:
    """Replace a device's assignment; the same one again changes nothing. Call it inside one `write()`.

    Raises Refused: 412 when the assignment is not the one that the change was made from, 404 or 409 naming the
    pipeline.
    """
    sequence, assigned = assignments.current(db, device.id)
    if if_match is not None and if_match.strip() not in ("*", sequence_tag(sequence)):
        raise Refused(
            412,
            f"the assignment of '{device.name}' is at sequence {sequence}, not {if_match}: read it and change that",
        )
    wanted = {pipeline: resolve(db, pipeline, digest, device.target) for pipeline, digest in sorted(asked.items())}
    if wanted != assigned:
        assignments.replace(db, device.id, sequence + 1, wanted)


def resolve(db: Connection, pipeline: str, digest: str, target: str) -> Assigned:
    """Find the manifest of a published index, or the index of a manifest, that fits a target."""
    try:
        Digest.parse(digest)
    except NotTrusted as error:
        raise BadInput(f"field 'pipelines.{pipeline}': {error}", field=f"pipelines.{pipeline}") from error
    known = [
        view for view in pipelines.versions(db, pipeline) if digest == view.index or digest in view.manifests.values()
    ]
    if not known:
        raise Refused(404, f"pipeline '{pipeline}' has no published version {digest}: `edgepack pipelines` lists them")
    view = known[0]
    if target not in view.manifests or digest not in (view.index, view.manifests[target]):
        raise Refused(
            409, f"pipeline '{pipeline}' version {digest} has no manifest for {target}: {_offer(view, target)}"
        )
    return Assigned(view.manifests[target], view.index, pipeline)


def _offer(view: PipelineView, target: str) -> str:
    there = ", ".join(sorted(view.manifests))
    return f"it is published for {there}; publish it with --target {target}"
