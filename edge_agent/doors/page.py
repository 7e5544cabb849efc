"""The status page: what is served, health, figures and last rows as they change, and a form to try a real row.

It asks nothing but this agent (`/readyz`, `/metrics`, `/logs`), so that it works in a plant without internet.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flask import render_template_string
from markupsafe import Markup

from columns.json_value import VALUE, is_value
from columns.records import encode_records
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edge_agent.pipelines.inference import RECORDS
from edge_agent.pipelines.serving import Serving
from edgepack import __version__
from edgepack.errors import EdgepackError

_LONGEST_EXAMPLE = 20_000  # characters that a form still shows well; an image's row is larger
_CUSTOM_JSON = "application/json; format=wallaroo"

_FIGURES = {
    "rate": "requests a second",
    "median": "median",
    "p99": "99 of 100 within",
    "failed": "requests refused or failed",
    "requests": "requests",
    "rows": "rows",
    "pending": "rows not sent home yet",
    "dropped": "log rows dropped",
}

_PARTS = Path(__file__).parent / "status_page"  # page.html (Jinja), style.css, script.js


def status_page(serving: Serving, nonce: str) -> str:
    """The page as HTML; `nonce` is what its policy lets style and script run by."""
    pipelines = serving.pipelines
    return render_template_string(
        _part("page.html"),
        nonce=nonce,
        style=Markup(_part("style.css")),  # noqa: S704 - files of ours
        script=Markup(_part("script.js")),  # noqa: S704
        figures=_FIGURES,
        release=__version__,
        waiting_for=serving.waiting_for,
        pipelines=pipelines,
        examples={pipeline.name: example_row(pipeline) for pipeline in pipelines},
    )


def example_row(pipeline: ActivePipeline) -> tuple[str, str]:
    """The first golden row as a body with its media type; a gap where it is too long for a form."""
    try:
        golden = pipeline.loaded.bundle.golden().inputs.slice(0, 1)
    except (OSError, EdgepackError):
        return "[]", RECORDS
    if is_value(golden.schema) and golden.rows:
        return str(golden[VALUE][0])[:_LONGEST_EXAMPLE], _CUSTOM_JSON
    text = encode_records(golden, ".").decode()
    return (text if len(text) <= _LONGEST_EXAMPLE else "[]"), RECORDS


@cache
def _part(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8")
