"""`ContainerRuntime`: a step that a container answers, as MLflow's scoring server does: `POST /invocations`.

Rules:
- its address is the environment's: `EDGEPACK_STEP_<NAME>_URL`; nothing is asked of it before the first row
- three dialects are tried until one is answered, and that one is kept: `dataframe_records` (2.x), `inputs` (2.x, models
  with a tensor signature), records alone (1.x)
- no byte of an answer is believed: size, time, rows, names and types are checked, and whatever is wrong is Unreachable:
  clients come back, the agent lives on; of a container that is there and answers what does not fit, Misfits
- it is asked few things at once, so that one which is silent keeps few threads; while none of them is answered, more
  are refused without a wait
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

from bundle.pipeline import StepSpec, address_variable
from columns.columns import Columns
from columns.records import encode_records
from columns.schema import Schema
from columns.values import column_from_values
from edgepack.errors import BadInput, Unreachable
from oci.deadline import pools_with_deadline
from runtimes.protocol import CONTAINER_REQUESTS, Misfits, RowsRefused

LARGEST_ANSWER = 64 << 20  # bytes
# of one answer, from the first byte sent to the last received: with _TURN_S less than the 15 s after which an agent
# tells a client that its request takes too long, without the reason
ANSWER_S = 12.0
_CONNECT_S = 2.0
_TURN_S = 1.0  # that a request waits for one of those before it to be answered
_PIECE = 1 << 16
_MOST_SAID = 200  # characters of a container's own words
_RETRY_S = 2.0
_LATER = (408, 425, 429)  # as those from 500 on: it is there, and not ready for this
_OF_ROWS = (400, 413, 422)

_JSON, _RECORDS = "application/json", "application/json; format=pandas-records"


def _frame(rows: bytes, schema: Schema) -> bytes:
    return b'{"dataframe_records":' + rows + b"}"


def _tensors(rows: bytes, schema: Schema) -> bytes:
    """One array where there is one field, else a dict of them."""
    found = json.loads(rows)
    columns = {name: [row[name] for row in found] for name in schema.names}
    return json.dumps({"inputs": columns if len(schema) > 1 else columns[schema.names[0]]}).encode()


def _records(rows: bytes, schema: Schema) -> bytes:
    return rows


# content type and body of a request, in the order in which they are tried
_DIALECTS: tuple[tuple[str, Callable[[bytes, Schema], bytes]], ...] = (
    (_JSON, _frame),
    (_JSON, _tensors),
    (_RECORDS, _records),
)


class ContainerRuntime:
    """One container, asked over HTTP. `infer` may be called by several threads at once."""

    def __init__(self, step: StepSpec, url: str | None, *, answer_s: float = ANSWER_S) -> None:
        self.name = step.name
        self.input, self.output = Schema.parse(step.input), Schema.parse(step.output)
        self._url, self._answer_s = (url or "").rstrip("/"), answer_s
        self._dialect: int | None = None
        self._turns = threading.BoundedSemaphore(CONTAINER_REQUESTS)
        self._is_stuck = False  # a request has waited for its turn in vain, and nothing was answered since
        self._pool = pools_with_deadline(answer_s, maxsize=CONTAINER_REQUESTS, retries=False)

    @classmethod
    def load(cls, path: Path, step: StepSpec) -> ContainerRuntime:
        """The runtime of a step, at the address that the environment says."""
        return cls(step, os.environ.get(address_variable(step.name)))

    def infer(self, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """Ask the container; see `Runtime.infer`. Raises Unreachable, one line, for whatever is wrong with it: Misfits
        where it answers, and not what this step needs.
        """
        if not self._url.startswith(("http://", "https://")):
            variable = address_variable(self.name)
            raise self._refusal(f"has no address: set {variable} to the container's, as http://127.0.0.1:8081")
        given = encode_records(Columns(self.input, {name: arrays[name] for name in self.input.names}, rows), ".")
        with self._turn():
            return self._ask(given, rows)

    def close(self) -> None:
        """Close all connections; the container is somebody else's."""
        self._pool.clear()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One of few requests at a time. Raises Unreachable where no other one ends."""
        if not self._turns.acquire(timeout=0 if self._is_stuck else _TURN_S):
            self._is_stuck = True
            raise self._refusal(f"has not answered {CONTAINER_REQUESTS} requests yet: it is asked no more until then")
        try:
            yield
        finally:
            self._turns.release()

    def _ask(self, given: bytes, rows: int) -> dict[str, np.ndarray]:
        """Send rows in the container's dialect, or in each until one is answered."""
        deadline = time.monotonic() + self._answer_s
        refusals = []
        for number in range(len(_DIALECTS)) if self._dialect is None else (self._dialect,):
            content_type, body = _DIALECTS[number]
            status, answer = self._post(content_type, body(given, self.input), deadline)
            if status == 200:
                found = self._read(answer, rows)
                self._dialect = number
                return found
            refusals.append(self._refused(status, answer))
            if number == 0 and not isinstance(refusals[0], Misfits):
                break  # it is broken or busy, not of another dialect
        raise refusals[0]

    def _post(self, content_type: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise self._refusal("took too long to answer")
        try:
            response = self._pool.request(
                "POST",
                f"{self._url}/invocations",
                body=body,
                headers={"Content-Type": content_type},
                timeout=urllib3.Timeout(connect=_CONNECT_S, total=left_s),
                preload_content=False,
                redirect=False,
            )
            try:
                said = self._whole(response)
                self._is_stuck = False
                return response.status, said
            finally:
                response.close() if response.status != 200 else response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise self._refusal(_reason(error)) from error

    def _whole(self, response: urllib3.BaseHTTPResponse) -> bytes:
        body = bytearray()
        while piece := response.read1(_PIECE):
            body += piece
            if len(body) > LARGEST_ANSWER:
                response.close()
                raise self._misfit(f"answers with more than {LARGEST_ANSWER >> 20} MiB")
        return bytes(body)

    def _read(self, answer: bytes, rows: int) -> dict[str, np.ndarray]:
        """The answer's columns, of the schema's types."""
        try:
            said = json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise self._misfit("answers with what is not JSON") from error
        columns = _columns(said["predictions"] if isinstance(said, dict) and "predictions" in said else said)
        if columns is None:
            raise self._misfit("answers with no predictions")
        if None in columns and len(self.output) == 1:  # an answer without a name is the only field
            columns = {self.output.names[0]: columns[None]}
        made = {}
        for field in self.output:
            values = columns.get(field.name)
            if values is None:
                there = ", ".join(f"'{name}'" for name in list(columns)[:8] if name) or "a value without a name"
                raise self._misfit(f"answers without field '{field.name}': it gives {there[:_MOST_SAID]}")
            if len(values) != rows:
                raise self._misfit(f"was asked {rows} rows and answers {len(values)}")
            try:
                made[field.name] = column_from_values(field, values, json=True)
            except BadInput as error:
                raise self._misfit(f"answers with what does not fit its schema: {str(error)[:_MOST_SAID]}") from error
        return made

    def _refusal(self, what: str) -> Unreachable:
        return Unreachable(f"the container of step '{self.name}' {what}", retry_after_s=_RETRY_S)

    def _misfit(self, what: str) -> Misfits:
        return Misfits(str(self._refusal(what)), retry_after_s=_RETRY_S)

    def _refused(self, status: int, answer: bytes) -> Unreachable:
        said = str(self._refusal(f"refuses rows that fit its schema ({status}{_words(answer)})"))
        kind = Unreachable if status >= 500 or status in _LATER else RowsRefused if status in _OF_ROWS else Misfits
        return kind(said, retry_after_s=_RETRY_S)


def _columns(said: Any) -> dict[str | None, list[Any]] | None:
    """Values by name: of records, of a dict of columns; under None where they have none."""
    if isinstance(said, dict):
        return {str(name): values if isinstance(values, list) else [values] for name, values in said.items()}
    if not isinstance(said, list):
        return None
    if said and all(isinstance(row, dict) for row in said):
        names = said[0].keys()
        if not all(row.keys() == names for row in said):
            return None
        return {str(name): [row[name] for row in said] for name in names}
    return {None: said}


def _words(answer: bytes) -> str:
    """What an error's body says for people."""
    try:
        said = json.loads(answer)
        words = said.get("message") if isinstance(said, dict) else said
    except (ValueError, RecursionError):
        words = answer[:_MOST_SAID].decode(errors="replace")
    line = " ".join(str(words).split())[:_MOST_SAID]
    return f": {line}" if line else ""


def _reason(error: Exception) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError):
        return "does not answer: is it running?"
    if isinstance(error, TimeoutError | urllib3.exceptions.TimeoutError):
        return "took too long to answer"
    if isinstance(error, ValueError | urllib3.exceptions.LocationValueError):
        return "has an address that is no URL"
    return "broke the connection off"
