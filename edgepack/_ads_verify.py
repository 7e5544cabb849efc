"""Asking a served artifact what ADS's own client would ask it, and comparing the answer with the estimator's."""

from __future__ import annotations

import base64
import io
import json
import math
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from edgepack import _program
from edgepack._ads_schema import array_of, in_one_line, plain_list, plain_value
from edgepack.errors import BadInput, RuntimeFailed

TOLERANCE = 1e-5  # relative to max(1, |expected|), as everywhere in edgepack
MOST_ASKED = 1000  # rows that `verify` sends
_ANSWER_S = 60
_JSON, _BYTES = "application/json", "application/octet-stream"


@contextmanager
def served(artifact: Path, data: Path, wheels: str | Path | None) -> Iterator[str]:
    """The address of an artifact behind a port of this machine, for as long as it is asked. `data` is where libraries
    are unpacked. Raises BadInput or RuntimeFailed where it cannot be served.
    """
    command = [*_program.command(), "serve", str(artifact), "--port", "0", "--data", str(data)]
    command += ["--wheels", str(wheels)] if wheels else []
    with (
        tempfile.TemporaryFile("w+") as said,  # a pipe that nobody reads fills up
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as child,
    ):
        try:
            yield _address(child, said)
        finally:
            child.terminate()
            try:
                child.communicate(timeout=_ANSWER_S)
            except subprocess.TimeoutExpired:
                child.kill()


def _address(child: subprocess.Popen[str], said: IO[str]) -> str:
    """Where the child serves, once it says so."""
    for line in child.stdout or ():
        if line.startswith("serving "):
            return line.partition(" on ")[2].split(" ")[0]
    code = child.wait()
    said.seek(0)
    raise _program.failed(code, said.read())


def first_rows(data: Any) -> Any:
    """The rows of these that are sent. Raises BadInput for what has none."""
    try:
        return data[:MOST_ASKED]
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise BadInput(
            f"verify() is given {type(data).__name__}: expected rows as X_sample has them, an object or bytes"
        ) from error


def payload_of(rows: Any, *, tensors: bool = False) -> tuple[bytes, str]:
    """Rows as ADS's own client sends them, and their content type; bytes as they are. With `tensors` a DataFrame is an
    array too. Raises BadInput for values that JSON cannot hold.
    """
    if isinstance(rows, bytes):
        return rows, _BYTES
    if isinstance(rows, (str, dict, list)):
        return _json(rows), _JSON
    if hasattr(rows, "columns") and hasattr(rows, "dtypes") and not tensors:
        columns = {str(name): dict(enumerate(plain_list(rows[name]))) for name in rows.columns}
        return _json({"data": _json(columns).decode(), "data_type": "pandas.core.frame.DataFrame"}), _JSON
    import numpy as np

    file = io.BytesIO()
    try:
        np.save(file, array_of(rows), allow_pickle=False)
    except ValueError as error:
        raise BadInput(
            f"the rows are no array of numbers or texts: {in_one_line(error)}; send a DataFrame or a list"
        ) from error
    return _json({"data": base64.b64encode(file.getvalue()).decode(), "data_type": "numpy.ndarray"}), _JSON


def _json(value: Any) -> bytes:
    try:
        return json.dumps(plain_value(value), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"the rows do not go into JSON: {in_one_line(error)}; give numbers, texts and truth values"
        ) from error


def posted(url: str, body: bytes, kind: str) -> Any:
    """What `POST /predict` answers. This machine is asked itself, whatever proxy the environment names.

    Raises BadInput with the reason where the rows are refused, RuntimeFailed where there is no answer.
    """
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": kind})  # noqa: S310 - our own server's
    try:
        try:
            with direct.open(request, timeout=_ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = json.loads(error.read() or b"{}").get("error", str(error))
            raise BadInput(f"the artifact does not answer these rows: {said}") from error
    except (OSError, ValueError) as error:
        raise RuntimeFailed(f"the artifact was served and gave no answer to these rows: {error}") from error


def difference(found: Any, expected: Any) -> float:
    """The largest difference of two answers, relative to max(1, |expected|); infinite where they are of two kinds."""
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return math.inf
        return max((difference(one, other) for one, other in zip(found, expected, strict=True)), default=0.0)
    if isinstance(expected, float) and found is None:
        return 0.0 if not math.isfinite(expected) else math.inf  # JSON has no NaN
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return abs(found - expected) / max(1.0, abs(expected))
    return 0.0 if found == expected else math.inf
