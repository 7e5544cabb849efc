"""GET /logs."""

from __future__ import annotations

from bundle.pipeline import dns_label
from edgepack.errors import BadInput
from hub.calls import Answer, Call
from hub.logs import MOST_ROWS, Cursor, LogQuery, read_page
from hub.refusal import Refused
from hub.store import pipelines, segments
from hub.store.devices import ids_of

_USUAL_ROWS = 1000
_NAMED = 20  # pipelines in a message


def get_logs(call: Call) -> Answer:
    """A page of result rows, oldest first."""
    asked = call.request.args
    query = LogQuery(
        after=Cursor.parse(asked["after"]) if "after" in asked else Cursor(),
        limit=_limit(asked.get("limit")),
        pipeline=_pipeline(call, asked.get("pipeline")),
        devices=_devices(call, asked.get("device")),
        request_id=asked.get("request_id"),
    )
    return Answer(200, raw=read_page(call.hub, query).encode())


def _limit(text: str | None) -> int:
    if text is None:
        return _USUAL_ROWS
    if not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_ROWS:
        raise Refused(400, f"query field 'limit' is '{text[:20]}': expected 1 to {MOST_ROWS}", field="limit")
    return int(text)


def _pipeline(call: Call, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        name = dns_label(text)
    except BadInput as error:
        raise Refused(400, f"query field 'pipeline': {error}", field="pipeline") from error
    with call.hub.database.read() as db:
        if pipelines.is_published(db, name) or segments.has_rows(db, name):
            return name
        known = sorted({*pipelines.names(db), *segments.pipelines_of(db)})
    raise Refused(404, f"pipeline '{name}' was never published and has no rows: {_offer(known)}", field="pipeline")


def _offer(known: list[str]) -> str:
    if not known:
        return "nothing is published yet, `edgepack publish` does it"
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    return "there is " + ", ".join(f"'{name}'" for name in known[:_NAMED]) + more


def _devices(call: Call, name_or_id: str | None) -> tuple[str, ...] | None:
    if name_or_id is None:
        return None
    with call.hub.database.read() as db:
        found = ids_of(db, name_or_id)
    if not found:
        raise Refused(
            404, f"device '{name_or_id}' was never enrolled: `edgepack devices` lists those that are", field="device"
        )
    return tuple(found)
