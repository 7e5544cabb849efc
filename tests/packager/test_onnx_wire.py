"""The wire walker against the onnx package, and against files that mean harm."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgepack.errors import BadInput
from packager.frameworks import onnx as onnx_framework
from packager.frameworks import onnx_wire
from packager.frameworks.onnx_wire import Value, read_onnx
from tests import make

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
dims = st.one_of(st.none(), st.integers(-1, 2**62), st.sampled_from(["N", "batch", "ü"]))
shapes = st.one_of(st.none(), st.lists(dims, max_size=4))
values = st.dictionaries(names, st.tuples(st.sampled_from(sorted(make.ELEMENTS)), shapes), min_size=1, max_size=4)


@st.composite
def models(draw: Any) -> onnx.ModelProto:
    """Any model that has names, shapes and weights; it need not run."""
    weights = {name: np.arange(draw(st.integers(0, 9)), dtype=np.float32) for name in draw(st.lists(names, max_size=3))}
    inner = make.linear().graph
    nodes = [helper.make_node("If", ["c"], ["r"], then_branch=inner, else_branch=inner)] * draw(st.integers(0, 2))
    model = make.onnx_model(
        nodes, draw(values), draw(values), weights, ir=draw(st.integers(1, 20)), opsets={"ai.onnx.ml": 3}
    )
    model.doc_string = draw(names)
    model.producer_name = draw(names)
    return model


def _as_value(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    spelled = {"dim_value": lambda d: d.dim_value, "dim_param": lambda d: d.dim_param, None: lambda _: None}
    found = tuple(spelled[dim.WhichOneof("value")](dim) for dim in tensor.shape.dim)
    return Value(info.name, "tensor", tensor.elem_type, found if tensor.HasField("shape") else None)


@given(models())
def test_the_walker_agrees_with_the_onnx_package(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto
) -> None:
    path = make.save(model, tmp_path_factory.mktemp("m") / "model.onnx")
    found = read_onnx(path)
    assert found.ir_version == model.ir_version
    assert found.producer == model.producer_name
    assert found.opsets == {each.domain: each.version for each in model.opset_import}
    assert found.inputs == [_as_value(each) for each in model.graph.input]
    assert found.outputs == [_as_value(each) for each in model.graph.output]
    assert found.initializers == {each.name for each in model.graph.initializer}


SEEDS = [
    make.linear().SerializeToString(),
    make.identity("string", ["N"]).SerializeToString(),
    (Path(__file__).parents[2] / "examples/wine-line/wine-line.onnx").read_bytes(),
]
edits = st.lists(
    st.tuples(st.integers(0, 2000), st.integers(0, 255), st.sampled_from(["set", "cut", "insert", "drop"])), max_size=8
)


def _edited(data: bytes, changes: list[tuple[int, int, str]]) -> bytes:
    made = bytearray(data)
    for place, byte, how in changes:
        at = place % (len(made) or 1)
        if how == "cut":
            del made[at:]
        elif how == "drop":
            del made[at : at + 1]
        elif how == "insert":
            made[at:at] = bytes([byte]) * (1 + byte % 12)
        elif made:
            made[at] = byte
    return bytes(made)


@settings(max_examples=500)
@given(st.sampled_from(SEEDS), edits)
def test_a_mutated_file_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, changes: list[tuple[int, int, str]]
) -> None:
    path = tmp_path_factory.mktemp("m") / "model.onnx"
    path.write_bytes(_edited(data, changes))
    try:
        signature = onnx_framework.inspect(path)
        onnx_framework.check_version(signature)
        onnx_framework.schemas(signature, [], None, None)
        onnx_framework.external_files(signature, path.parent)
    except BadInput as error:
        assert "\n" not in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("m") / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(BadInput):
        read_onnx(path)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    data = make.linear().SerializeToString()
    path = tmp_path / "model.onnx"
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(BadInput):
            onnx_framework.inspect(path)


def _message(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    made = b""
    while value >= 0x80:
        made, value = made + bytes([value & 0x7F | 0x80]), value >> 7
    return made + bytes([value])


def test_weights_are_seeked_over_and_never_read(tmp_path: Path) -> None:
    size = 1 << 30
    tensor = _message(8, b"w") + bytes([9 << 3 | 2]) + _varint(size)
    initializer = bytes([5 << 3 | 2]) + _varint(len(tensor) + size) + tensor
    after = _message(11, _message(1, b"x"))
    graph = bytes([7 << 3 | 2]) + _varint(len(initializer) + size + len(after)) + initializer
    path = tmp_path / "big.onnx"
    with path.open("wb") as file:
        file.write(b"\x08\x08" + graph)
        file.seek(size, 1)
        file.write(after)
    tracemalloc.start()
    found = read_onnx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.initializers == {"w"} and [value.name for value in found.inputs] == ["x"]
    assert peak < 1 << 20


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    body = b""
    for _ in range(onnx_wire.DEEPEST + 2):
        body = _message(1, _message(5, _message(6, body)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(b"\x08\x08" + _message(7, body))
    with pytest.raises(BadInput, match="nested deeper"):
        read_onnx(path)


def test_fields_names_and_text_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "many.onnx"
    path.write_bytes(b"\x08\x08" + _message(7, _message(1, b"") * 2000))
    monkeypatch.setattr(onnx_wire, "MOST_FIELDS", 1000)
    with pytest.raises(BadInput, match="more than 1000 fields"):
        read_onnx(path)
    path.write_bytes(b"\x08\x08" + _message(7, _message(5, _message(8, b"n" * 70_000))))
    with pytest.raises(BadInput, match="names longer"):
        read_onnx(path)


@pytest.mark.parametrize(
    "data, named",
    [
        (b"", "empty"),
        (b"\x08\x08", "no graph"),
        (b"\x08\x08" + _message(7, b"") * 2, "no single graph"),
        (_message(7, b""), "no IR version"),
        (b"\x08\x08\x03", "wire type"),
        (b"\x08\x08\x3a\x05\x00", "middle of a field"),
        (b"\x08" + b"\xff" * 11, "no whole number"),
        (b"\x08\x08" + _message(7, _message(11, _message(1, b"\xff\xfe"))), "not UTF-8"),
        (b"<html>404</html>", "not"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(data: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=r"'m\.onnx'") as refused:
        read_onnx(path)
    assert named in str(refused.value)


def _outside(tensor: Any, location: str, **more: str) -> None:
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    tensor.ClearField("raw_data")


def test_external_data_is_found_wherever_a_tensor_can_be(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.zeros(2, np.float32), "c")
    _outside(constant, "attribute.bin")
    nested = make.linear()
    _outside(nested.graph.initializer[0], "branch.bin", offset="4", length="8")
    nodes = [
        helper.make_node("Constant", [], ["k"], value=constant),
        helper.make_node("If", ["b"], ["y"], then_branch=nested.graph, else_branch=make.linear().graph),
    ]
    model = make.onnx_model(nodes, {"b": ("bool", [])}, {"y": ("float32", [1])}, {"w": np.zeros(3, np.float32)})
    _outside(model.graph.initializer[0], "top.bin")
    found = read_onnx(make.save(model, tmp_path / "m.onnx"))
    assert {each.location for each in found.external} == {"attribute.bin", "branch.bin", "top.bin"}
    assert next((e.offset, e.length) for e in found.external if e.location == "branch.bin") == (4, 8)
