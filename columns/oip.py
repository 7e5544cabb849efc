"""The messages of the Open Inference Protocol v2: a JSON object, and behind it raw tensors where they are asked for.

Sources: the protocol's "Inference Request JSON Object" and "Inference Response JSON Object", and Triton's binary
tensor data extension, by which `Inference-Header-Content-Length` says where the JSON ends. What columns have to do
with tensors stands in `columns.oip_columns`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from columns.oip_tensors import Tensor, from_json, from_raw, to_json, to_raw
from columns.types import clip
from edgepack.errors import BadInput

Piece = bytes | memoryview


@dataclass(frozen=True)
class InferRequest:
    """What a client asks. `outputs` maps the names it wants to whether it wants them raw; None wants all."""

    id: str
    tensors: dict[str, Tensor]
    outputs: dict[str, bool] | None = None
    raw: bool = False

    def wanted(self, names: Sequence[str]) -> dict[str, bool]:
        """Which of a model's outputs to answer with, and which of them raw. Raises BadInput for one it lacks."""
        if self.outputs is None:
            return dict.fromkeys(names, self.raw)
        for name in self.outputs:
            if name not in names:
                there = ", ".join(f"'{each}'" for each in names)
                raise BadInput(f"no output '{clip(name)}': there is {there}", field=clip(name))
        return self.outputs


class _Parameters(msgspec.Struct, frozen=True):
    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False
    classification: Any = None
    shared_memory_region: Any = None


_NONE = _Parameters()
_ABSENT = msgspec.Raw()


class _Input(msgspec.Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Parameters | None = None
    data: msgspec.Raw = _ABSENT


class _Output(msgspec.Struct, frozen=True):
    name: str
    parameters: _Parameters | None = None


class _Request(msgspec.Struct, frozen=True):
    inputs: list[_Input]
    id: str = ""
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


_REQUESTS = msgspec.json.Decoder(_Request)


def decode_request(body: bytes | bytearray | memoryview, json_size: int | None = None) -> InferRequest:
    """Read a request. `json_size` is the length of its JSON where raw tensors follow it.

    Raw tensors may lie in `body`. Raises BadInput that names the input at fault.
    """
    view = memoryview(body).cast("B")
    if json_size is not None and not 0 <= json_size <= len(view):
        raise BadInput(f"the request's JSON is said to have {json_size} bytes, the body has {len(view)}")
    found = _parsed(view[:json_size])
    tensors, at = {}, len(view) if json_size is None else json_size
    for each in found.inputs:
        size = (each.parameters or _NONE).binary_data_size
        if each.name in tensors:
            raise BadInput(f"input '{clip(each.name)}' is there twice", field=clip(each.name))
        tensors[each.name] = _tensor(each, view[at : at + max(0, size or 0)])
        at += max(0, size or 0)
    if at != len(view):
        raise BadInput(f"the inputs take {at} bytes of the body, it has {len(view)}")
    raw = (found.parameters or _NONE).binary_data_output
    return InferRequest(found.id, tensors, _wanted(found, raw), raw)


def encode_response(
    model: str, version: str, id: str, outputs: Iterable[tuple[Tensor, bool]]
) -> tuple[bytes, int | None]:
    """A response, and the length of its JSON if raw tensors follow; the flag beside a tensor asks for it raw."""
    head = orjson.dumps({"model_name": model, "model_version": version, **({"id": id} if id else {})})[:-1]
    return _encode(head + b',"outputs":[', [(tensor, raw) for tensor, raw in outputs])


def encode_request(tensors: Iterable[Tensor], *, raw: bool) -> tuple[bytes, int | None]:
    """A request, as a client makes one."""
    return _encode(b'{"inputs":[', [(tensor, raw) for tensor in tensors])


def _encode(head: bytes, tensors: list[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    described: list[bytes] = []
    behind: list[Piece] = []
    for tensor, raw in tensors:
        said = orjson.dumps({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.array.shape})[:-1]
        if raw:
            behind.append(to_raw(tensor))
            said += b',"parameters":{"binary_data_size":%d}}' % len(behind[-1])
        else:
            said += b',"data":' + to_json(tensor) + b"}"
        described.append(said)
    text = head + b",".join(described) + b"]}"
    return (b"".join([text, *behind]), len(text)) if behind else (text, None)


def _parsed(text: memoryview) -> _Request:
    try:
        return _REQUESTS.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        shown = bytes(text)
        if b"NaN" in shown or b"Infinity" in shown:
            raise BadInput("JSON has no NaN and no infinity: send such tensors raw") from error
        raise BadInput(f"the body is no inference request: {clip(str(error), 200)}") from error


def _tensor(each: _Input, behind: memoryview) -> Tensor:
    said = each.parameters or _NONE
    if said.shared_memory_region is not None:
        raise BadInput(f"input '{clip(each.name)}' lies in shared memory, which is not offered", field=clip(each.name))
    if said.binary_data_size is not None:
        if len(behind) != said.binary_data_size or len(memoryview(each.data)):
            expected = f"expected {said.binary_data_size} bytes behind the JSON, and no `data`"
            raise BadInput(f"input '{clip(each.name)}' is cut short or there twice: {expected}", field=clip(each.name))
        return from_raw(each.name, each.datatype, each.shape, behind)
    if not len(memoryview(each.data)):
        raise BadInput(f"input '{clip(each.name)}' has neither `data` nor `binary_data_size`", field=clip(each.name))
    try:
        values = orjson.loads(memoryview(each.data))
    except orjson.JSONDecodeError as error:
        raise BadInput(
            f"input '{clip(each.name)}' has data that is not JSON: {error}", field=clip(each.name)
        ) from error
    return from_json(each.name, each.datatype, each.shape, values)


def _wanted(found: _Request, raw: bool) -> dict[str, bool] | None:
    if not found.outputs:
        return None
    wanted = {}
    for each in found.outputs:
        said = each.parameters or _NONE
        if said.classification is not None or said.shared_memory_region is not None:
            raise BadInput(
                f"output '{clip(each.name)}' asks for classification or shared memory, which are not offered",
                field=clip(each.name),
            )
        wanted[each.name] = raw if said.binary_data is None else said.binary_data
    return wanted
