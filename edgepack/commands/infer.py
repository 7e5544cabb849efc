"""`edgepack infer`: send rows to a running agent and print its answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.errors import BadInput, EdgepackError, RuntimeFailed, Unreachable

if TYPE_CHECKING:
    import urllib3

_RECORDS = "application/json; format=pandas-records"
_ARROW = {b"ARROW1": "application/vnd.apache.arrow.file", b"\xff\xff\xff\xff": "application/vnd.apache.arrow.stream"}
_TIMEOUT_S = 60
_MOST_BYTES = 512 << 20  # agents take 64 MiB unless they are told otherwise


@click.command(name="infer", short_help="Send rows to a running agent.")
@click.argument("file", metavar="FILE|-")
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where the agent answers.")
@click.option("--pipeline", help="Which pipeline, where the agent serves several.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as one JSON value.")
def command(file: str, url: str, pipeline: str | None, as_json: bool) -> None:
    """Send the rows of FILE (`-` is standard input) to an agent and print one line a row: its outputs.

    FILE is pandas-records JSON, an Arrow file or an Arrow stream. Rows in the form of golden rows (`in.<field>`,
    `out.<field>`) are taken too: their inputs are sent.

    \b
    Example:
      edgepack serve ccfraud.onnx &
      edgepack infer rows.json
      echo '[{"tensor": [0.1, 0.2]}]' | edgepack infer - --pipeline ccfraud --json
    """
    body, content_type = _readied(_read(file))
    path = f"/pipelines/{pipeline}" if pipeline else "/infer"
    rows = _ask(url.rstrip("/") + path, body, content_type)
    if as_json:
        click.echo(json.dumps(rows, separators=(",", ":"), ensure_ascii=False))
    else:
        for row in rows:
            click.echo(json.dumps({**row["out"], **_anomalies(row)}, ensure_ascii=False))


def _read(file: str) -> bytes:
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as rows:
            body = rows.read(_MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"rows '{file}' do not read: {error.strerror}") from error
    if len(body) > _MOST_BYTES:
        raise BadInput(f"rows '{file}' are more than {_MOST_BYTES >> 20} MiB: send fewer at once")
    return body


def _readied(body: bytes) -> tuple[bytes, str]:
    """What to send and its content type, told from how the bytes begin. What is wrong in it the agent says."""
    for magic, content_type in _ARROW.items():
        if body.startswith(magic):
            return body, content_type
    if b'"in.' not in body:
        return body, _RECORDS
    try:
        rows = json.loads(body)
        sent = [{name[3:]: value for name, value in row.items() if name.startswith("in.")} for row in rows]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return body, _RECORDS
    return json.dumps(sent).encode(), _RECORDS


def _ask(url: str, body: bytes, content_type: str) -> list[dict[str, Any]]:
    import urllib3

    if not url.startswith(("http://", "https://")):
        raise BadInput(f"'{url}' is no URL: expected one like http://127.0.0.1:8080", field="url")
    try:
        answer = urllib3.request(
            "POST",
            url,
            body=body,
            headers={"Content-Type": content_type},
            timeout=_TIMEOUT_S,
            retries=urllib3.Retry(0, read=False),
        )
    except urllib3.exceptions.LocationValueError as error:
        raise BadInput(f"'{url}' is no URL: expected one like http://127.0.0.1:8080", field="url") from error
    except urllib3.exceptions.HTTPError as error:
        raise Unreachable(
            f"no agent answers at {url}: start one with `edgepack serve`, or name another with --url"
        ) from error
    if answer.status != 200:
        raise _refused(answer, url)
    return _rows(answer.data, url)


def _rows(data: bytes, url: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"what answers at {url} is no edgepack agent: its answer is not JSON") from error
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and isinstance(row.get("out"), dict) for row in rows
    ):
        raise Unreachable(f"what answers at {url} is no edgepack agent: its answer is not a list of rows")
    return rows


def _refused(answer: urllib3.BaseHTTPResponse, url: str) -> EdgepackError:
    """The agent's own words, under the family that its status stands for."""
    try:
        words = json.loads(answer.data)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        words = f"status {answer.status} from {url}"
    if answer.status == 503:
        return Unreachable(str(words))
    return BadInput(str(words)) if 400 <= answer.status < 500 else RuntimeFailed(str(words))


def _anomalies(row: dict[str, Any]) -> dict[str, Any]:
    """Names of the validations that were true, where there are any."""
    found = [name for name, said in row.get("anomaly", {}).items() if said is True]
    return {"anomaly": found} if found else {}
