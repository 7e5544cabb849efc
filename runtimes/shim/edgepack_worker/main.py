"""A worker's life: load, say hello, then answer one message after another until the socket closes."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from . import columns, frames
from .absent import Absent
from .json_value import FIELD, is_bytes, of_values, row_of
from .types import parse

_LONGEST = 500  # characters of a message
Answer = Callable[[dict[str, Any], int], dict[str, Any]]


def main(numbers: str) -> None:
    """Serve on an inherited socket and shared memory. The first message says kind, model, input, output, options."""
    channel = frames.Channel(numbers)
    said = json.loads(bytes(channel.receive()))
    try:
        answer = load(said)
    except BaseException as error:  # noqa: BLE001 - whatever user-made code raises, its reason goes to the parent
        channel.send({"error": _plain(error)})
        return
    channel.send({"sandbox": getattr(sys, "edgepack_sandbox", ""), "pid": os.getpid()})
    schema = {name: parse(text) for name, text in said["output"].items()}
    takes_values = bool(said["options"].get("json") or said["options"].get("values"))
    serve(channel, lambda body: _answered(answer, body, schema, said["output"], takes_values))


def serve(channel: frames.Channel, answered: Callable[[Any], tuple[dict[str, Any], Any]]) -> None:
    """Answer one body after another with a head and buffers, until the other side closes the socket."""
    while True:
        try:
            body = channel.receive()
        except (frames.Gone, ConnectionError):
            return
        head, buffers = answered(body)
        put = channel.put(buffers)
        del buffers  # parts of them may be parts of the body
        channel.done(body)
        channel.send(head, *put)


def load(order: dict[str, Any]) -> Answer:
    """Load what the order names and return what answers rows."""
    module = importlib.import_module(f"{__package__}.{order['kind']}")
    answer: Answer = module.load(order)
    return of_values(answer) if order["options"].get("json") else answer


def _answered(answer: Answer, body: Any, schema: Any, texts: Any, takes_values: bool) -> Any:
    try:
        arrays, rows = columns.decode(body)
        given = answer(arrays, rows)
        if not isinstance(given, dict):
            raise columns.Misfit(f"the answer is {type(given).__name__}, expected a dict of arrays")
        if takes_values and list(given) == [FIELD]:
            texts = {FIELD: "binary" if is_bytes(given[FIELD]) else "string"}
            schema = {FIELD: parse(texts[FIELD])}
        return {}, columns.encode(schema, texts, given, rows)
    except Absent as absent:
        return {"error": _plain(absent), "absent": True}, [json.dumps(absent.said).encode()]
    except MemoryError:
        return {"error": "out of memory: give the pipeline more under [resources] memory, or send fewer rows"}, ()
    except BaseException as error:  # noqa: BLE001 - as above; also SystemExit, which must not end the worker
        traceback.print_exc()
        return {"error": _plain(error)}, ()


def _plain(error: BaseException) -> str:
    """An error in one line: where in the user's files it arose stands in the log."""
    text, row = " ".join(str(error).split()), row_of(error)
    if isinstance(error, columns.Misfit):
        return text[:_LONGEST]
    return f"{row}{': ' if row else ''}{type(error).__name__}{': ' if text else ''}{text}"[:_LONGEST]
