"""`edgepack logs`: read the central log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from edgepack.commands._hub_client import hub_options
from edgepack.errors import Unreachable

if TYPE_CHECKING:
    from edgepack.commands._hub_client import HubClient

_PAGE = 1000
_POLL_S = 1.0


@click.command("logs", short_help="Read the central log.")
@click.argument("pipeline", required=False)
@click.option("--device", help="Only rows of this device, by name or id.")
@click.option("--request-id", help="Only rows of this X-Request-Id.")
@click.option("--limit", type=click.IntRange(1), help="At most this many rows. Default: all there are.")
@click.option("--after", help="Go on behind this cursor, the `next` of an earlier --json.")
@click.option("--follow", is_flag=True, help="Wait for more rows until Ctrl-C.")
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --follow one a line, a row each.")
def command(
    pipeline: str | None,
    device: str | None,
    request_id: str | None,
    limit: int | None,
    after: str | None,
    follow: bool,
    hub_url: str,
    token: str | None,
    as_json: bool,
) -> None:
    """Print result rows, oldest first, one JSON object a line; of PIPELINE only, where it is given.

    \b
    Example:
      edgepack logs wine-line --limit 10
      edgepack logs --device press-1 --follow
    """
    from edgepack.commands._hub_client import HubClient, print_json

    query = {"pipeline": pipeline, "device": device, "request_id": request_id}
    rows: list[dict[str, Any]] = []
    with HubClient(hub_url, token) as hub:
        reader = _Reader(hub, query, after, limit)
        while True:
            for row in reader.read_on():
                rows.append(row) if as_json and not follow else print_json(row)
            if not follow or reader.is_done:
                break
            time.sleep(_POLL_S)
    if as_json and not follow:
        print_json({"rows": rows, "next": reader.after})


class _Reader:
    """Reads on from a cursor, page by page, up to a number of rows."""

    def __init__(self, hub: HubClient, query: dict[str, str | None], after: str | None, limit: int | None) -> None:
        self._hub, self._query, self._left = hub, query, limit
        self._reached = False
        self.after = after

    @property
    def is_done(self) -> bool:
        """Whether as many rows were read as were asked for."""
        return self._left is not None and self._left <= 0

    def read_on(self) -> Any:
        """Every row that is there now and was not read yet."""
        while not self.is_done:
            limit = _PAGE if self._left is None else min(_PAGE, self._left)
            page = self._page(limit)
            if page is None or page.next is None:
                return
            yield from page.rows
            self.after = page.next
            self._left = None if self._left is None else self._left - len(page.rows)

    def _page(self, limit: int) -> Any:
        """One page; once the hub has answered, a reader that follows outlives its restart."""
        try:
            page = self._hub.logs(**self._query, after=self.after, limit=limit)
        except Unreachable:
            if not self._reached:
                raise
            return None
        self._reached = True
        return page
