"""What runs inside an engine process: a native engine behind the same socket as a python worker.

It loads one model file, says hello with the engine's own tensors, then answers rows (`columns.raw`) with rows and
tensors (`columns.raw_tensors`) with tensors.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from arch.providers import Choice
from bundle.pipeline import StepSpec
from columns.columns import Columns
from columns.raw import decode_raw, encode_raw
from columns.raw_tensors import MAGIC, decode_tensors, encode_tensors
from edgepack.errors import BadInput, EdgepackError
from runtimes.cpus import using_threads
from runtimes.engines import Hello
from runtimes.pipeline import load_engine
from runtimes.protocol import Runtime, TensorRuntime
from runtimes.shim.edgepack_worker.frames import Channel
from runtimes.shim.edgepack_worker.main import serve


def main(numbers: str) -> None:
    """Serve on an inherited socket and shared memory; the first message says which model."""
    channel = Channel(numbers)
    said = json.loads(bytes(channel.receive()))
    try:
        engine = _loaded(said)
    except Exception as error:  # noqa: BLE001 - whatever an engine raises, its reason goes to the parent
        channel.send(_blamed(error))
        return
    hello = msgspec.json.encode(_hello(engine))
    channel.send({"sandbox": getattr(sys, "edgepack_sandbox", ""), "pid": os.getpid()}, body=hello)
    serve(channel, lambda body: _answered(engine, body))


def _loaded(said: dict[str, Any]) -> Runtime:
    step = msgspec.convert(said["options"]["step"], StepSpec)
    with using_threads(said["options"]["threads"]):
        return load_engine(Path(said["model"]) / said["options"]["file"], step)


def _hello(engine: Runtime) -> Hello:
    providers = getattr(engine, "providers", None)
    tensors = (engine.tensor_inputs, engine.tensor_outputs) if isinstance(engine, TensorRuntime) else None
    return Hello(providers if isinstance(providers, Choice) else Choice(), tensors)


def _answered(engine: Runtime, body: Any) -> tuple[dict[str, Any], Any]:
    try:
        if bytes(body[:4]) == MAGIC:
            assert isinstance(engine, TensorRuntime)  # noqa: S101 - as its hello said
            return {}, encode_tensors(engine.infer_tensors(decode_tensors(body)))
        rows = decode_raw(body)
        return {}, encode_raw(Columns(engine.output, engine.infer(rows.arrays, rows.rows), rows.rows))
    except MemoryError:
        return {"error": "not enough memory for these rows: send fewer at once"}, ()
    except EdgepackError as error:
        return _blamed(error), ()


def _blamed(error: Exception) -> dict[str, Any]:
    blame = BadInput.__name__ if isinstance(error, BadInput) else ""
    words = str(error) if isinstance(error, EdgepackError) else f"{type(error).__name__}: {error}"
    return {"error": " ".join(words.split())[:600], "blame": blame, "field": getattr(error, "field", None)}
