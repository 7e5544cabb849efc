"""Reads what an ONNX file says about itself from its protobuf wire format, seeking over the weights.

A file of any size costs a few kilobytes of memory and the time to walk its nodes. Nothing is trusted: lengths are
checked against the enclosing message, nesting and the number of fields are bounded, and whatever does not fit raises
BadInput. Field numbers are those of onnx.proto3 (onnx 1.23, IR version 14); encoding per "Protocol Buffers:
Encoding".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from edgepack.errors import BadInput

MOST_FIELDS = 4_000_000  # walked in one file; the largest published graphs have some hundred thousand nodes
MOST_TEXT = 64 << 20  # bytes of names kept in memory
LONGEST_TEXT = 1 << 16  # bytes of one name
DEEPEST = 32  # graphs inside graphs: If, Loop and Scan bodies
LARGEST_FILE = (2 << 30) - 1  # protobuf messages are smaller than 2 GiB; larger models keep their weights outside

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Dim = int | str | None


@dataclass(frozen=True)
class Value:
    """An input or output of the graph. `kind` is `tensor`, or what else ONNX has; `element` is a
    TensorProto.DataType.
    """

    name: str
    kind: str
    element: int
    dims: tuple[Dim, ...] | None  # a number, a symbol or nothing for each axis; None when the rank is not known


@dataclass(frozen=True)
class ExternalTensor:
    """Weights in a file beside the model."""

    location: str
    offset: int
    length: int | None


@dataclass
class OnnxFile:
    """What the file says. `opsets` maps a domain (`` is ai.onnx) to its version."""

    ir_version: int = 0
    producer: str = ""
    producer_version: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    opsets: dict[str, int] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)
    external: list[ExternalTensor] = field(default_factory=list)
    graphs: int = 0


def read_onnx(path: Path) -> OnnxFile:
    """Walk an ONNX file. Raises BadInput when it is empty, cut short, too large or not ONNX."""
    size = path.stat().st_size
    if not size:
        raise BadInput(f"'{path.name}' is empty: expected an ONNX model")
    if size > LARGEST_FILE:
        raise BadInput(
            f"'{path.name}' has {size} bytes: an ONNX file has less than 2 GiB, larger weights are external data"
        )
    with path.open("rb", buffering=1 << 16) as file:
        found = _Walker(file, size).model()
    if not found.ir_version or found.graphs != 1:
        lacks = "IR version" if not found.ir_version else "graph" if not found.graphs else "single graph"
        raise BadInput(f"'{path.name}' is not an ONNX model: it has no {lacks}")
    return found


@dataclass(frozen=True)
class _Field:
    """One field of a message: its number, wire type, value (varint) or the span of its bytes."""

    number: int
    wire: int
    varint: int
    start: int
    end: int


class _Walker:
    """One pass over a file. Each method reads the message that lies between two positions."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._fields = 0
        self._text = 0
        self._found = OnnxFile()

    def model(self) -> OnnxFile:
        """ModelProto."""
        for each in self._messages(0, self._size):
            if each.number == 1 and each.wire == _VARINT:
                self._found.ir_version = each.varint
            elif each.number == 2 and each.wire == _LENGTH:
                self._found.producer = self._string(each)
            elif each.number == 3 and each.wire == _LENGTH:
                self._found.producer_version = self._string(each)
            elif each.number == 14 and each.wire == _LENGTH:
                self._metadata(each)
            elif each.number == 7 and each.wire == _LENGTH:
                self._found.graphs += 1
                self._graph(each, depth=0)
            elif each.number == 8 and each.wire == _LENGTH:
                self._opset(each)
            elif each.number == 25 and each.wire == _LENGTH:
                self._function(each)
        return self._found

    def _metadata(self, entry: _Field) -> None:
        """An entry of metadata_props. It is for people: a model is no worse for one that is too long or no text."""
        if entry.end - entry.start <= LONGEST_TEXT:
            with contextlib.suppress(BadInput):
                self._found.metadata.update([self._entry(entry)])

    def _graph(self, graph: _Field, depth: int) -> None:
        """GraphProto; names and values count only in the outermost, external data everywhere."""
        for each in self._inside(graph):
            if each.number == 1:
                self._node(each, depth)
            elif each.number == 5:
                self._initializer(each, named=depth == 0)
            elif each.number == 15:
                self._sparse(each, named=depth == 0)
            elif each.number == 11 and depth == 0:
                self._found.inputs.append(self._value(each))
            elif each.number == 12 and depth == 0:
                self._found.outputs.append(self._value(each))

    def _function(self, function: _Field) -> None:
        """FunctionProto: nodes, and attributes with defaults."""
        for each in self._inside(function):
            if each.number == 7:
                self._node(each, depth=0)
            elif each.number == 11:
                self._attribute(each, depth=0)

    def _node(self, node: _Field, depth: int) -> None:
        """NodeProto: only its attributes can hold weights or graphs."""
        for each in self._inside(node):
            if each.number == 5:
                self._attribute(each, depth)

    def _attribute(self, attribute: _Field, depth: int) -> None:
        """AttributeProto."""
        for each in self._inside(attribute):
            if each.number in (5, 10):
                self._initializer(each, named=False)
            elif each.number in (22, 23):
                self._sparse(each, named=False)
            elif each.number in (6, 11):
                if depth >= DEEPEST:
                    raise self._broken(f"has graphs nested deeper than {DEEPEST}")
                self._graph(each, depth + 1)

    def _sparse(self, sparse: _Field, named: bool) -> None:
        """SparseTensorProto: `values` carries the name."""
        for each in self._inside(sparse):
            if each.number in (1, 2):
                self._initializer(each, named=named and each.number == 1)

    def _initializer(self, tensor: _Field, named: bool) -> None:
        """TensorProto: its name, and where its bytes lie if not here."""
        entries: dict[str, str] = {}
        outside = False
        for each in self._messages(tensor.start, tensor.end):
            if each.number == 8 and each.wire == _LENGTH and named:
                self._found.initializers.add(self._string(each))
            elif each.number == 13 and each.wire == _LENGTH:
                entries.update([self._entry(each)])
            elif each.number == 14 and each.wire == _VARINT:
                outside = each.varint == 1
        if outside or "location" in entries:
            self._found.external.append(self._external(entries))

    def _external(self, entries: dict[str, str]) -> ExternalTensor:
        location, offset, length = entries.get("location", ""), entries.get("offset", "0"), entries.get("length")
        numbers = [text for text in (offset, length) if text is not None]
        if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in numbers):
            raise self._broken(
                f"has external data {location[:100]!a} with offset {offset[:30]!a} and length {str(length)[:30]!a}"
            )
        return ExternalTensor(location, int(offset), None if length is None else int(length))

    def _value(self, info: _Field) -> Value:
        """ValueInfoProto."""
        name, kind, element, dims = "", "none", 0, None
        for each in self._inside(info):
            if each.number == 1:
                name = self._string(each)
            elif each.number == 2:
                kind, element, dims = self._type(each)
        return Value(name, kind, element, dims)

    def _type(self, type_: _Field) -> tuple[str, int, tuple[Dim, ...] | None]:
        """TypeProto."""
        kinds = {1: "tensor", 4: "sequence", 5: "map", 7: "opaque", 8: "sparse tensor", 9: "optional"}
        kind, element, dims = "none", 0, None
        for each in self._inside(type_):
            if each.number not in kinds:
                continue
            kind = kinds[each.number]
            for part in self._messages(each.start, each.end) if each.number == 1 else ():
                if part.number == 1 and part.wire == _VARINT:
                    element = part.varint
                elif part.number == 2 and part.wire == _LENGTH:
                    dims = tuple(self._dim(dim) for dim in self._inside(part) if dim.number == 1)
        return kind, element, dims

    def _dim(self, dim: _Field) -> Dim:
        """TensorShapeProto.Dimension."""
        found: Dim = None
        for each in self._messages(dim.start, dim.end):
            if each.number == 1 and each.wire == _VARINT:
                found = each.varint - (1 << 64) if each.varint >> 63 else each.varint
            elif each.number == 2 and each.wire == _LENGTH:
                found = self._string(each)
        return found

    def _opset(self, opset: _Field) -> None:
        """OperatorSetIdProto."""
        domain, version = "", 0
        for each in self._messages(opset.start, opset.end):
            if each.number == 1 and each.wire == _LENGTH:
                domain = self._string(each)
            elif each.number == 2 and each.wire == _VARINT:
                version = each.varint
        domain = "" if domain == "ai.onnx" else domain
        self._found.opsets[domain] = max(version, self._found.opsets.get(domain, 0))

    def _entry(self, entry: _Field) -> tuple[str, str]:
        """StringStringEntryProto."""
        key = value = ""
        for each in self._inside(entry):
            if each.number == 1:
                key = self._string(each)
            elif each.number == 2:
                value = self._string(each)
        return key, value

    def _inside(self, message: _Field) -> Iterator[_Field]:
        """The fields of a message that have a length; in the messages walked with this, no other matters."""
        return (each for each in self._messages(message.start, message.end) if each.wire == _LENGTH)

    def _messages(self, start: int, end: int) -> Iterator[_Field]:
        """Every field between two positions. The caller may read elsewhere between two of them."""
        position = start
        while position < end:
            self._fields += 1
            if self._fields > MOST_FIELDS:
                raise self._broken(f"has more than {MOST_FIELDS} fields")
            key, position = self._read_varint(position, end)
            number, wire = key >> 3, key & 7
            value, begin = 0, position
            if wire == _VARINT:
                value, position = self._read_varint(position, end)
            elif wire == _LENGTH:
                length, begin = self._read_varint(position, end)
                position = begin + length
            elif wire in (_FIXED64, _FIXED32):
                position += 8 if wire == _FIXED64 else 4
            else:
                raise self._broken(f"has wire type {wire} at byte {position}")
            if not number or position > end:
                raise self._broken(f"ends in the middle of a field, at byte {min(position, self._size)}")
            yield _Field(number, wire, value, begin, position)

    def _read_varint(self, position: int, end: int) -> tuple[int, int]:
        self._file.seek(position)
        value = 0
        for shift, byte in enumerate(self._file.read(min(10, end - position))):
            value |= (byte & 0x7F) << (7 * shift)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position + shift + 1
        raise self._broken(f"has no whole number at byte {position}")

    def _string(self, text: _Field) -> str:
        length = text.end - text.start
        self._text += length
        if length > LONGEST_TEXT or self._text > MOST_TEXT:
            raise self._broken(f"has names longer than {LONGEST_TEXT} bytes, or {MOST_TEXT} together")
        self._file.seek(text.start)
        try:
            return self._file.read(length).decode()
        except UnicodeDecodeError as error:
            raise self._broken(f"has a name at byte {text.start} that is not UTF-8") from error

    def _broken(self, what: str) -> BadInput:
        name = getattr(self._file, "name", "model")
        return BadInput(f"'{Path(str(name)).name}' is not a whole ONNX model: it {what}")
