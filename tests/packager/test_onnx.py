"""From an ONNX signature to fields, and what the runtime cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgepack.errors import BadInput
from packager.frameworks import onnx as framework
from packager.frameworks.onnx import check_version, external_files, inspect, schemas
from tests import make


def fields(model: onnx.ModelProto, tmp_path: Path, **given: Any) -> tuple[dict[str, str], dict[str, str]]:
    signature = inspect(make.save(model, tmp_path / "m.onnx"))
    asked = {"tensor_fields": [], "inputs": None, "outputs": None, **given}
    inputs, outputs = schemas(signature, **asked)
    return inputs.to_dict(), outputs.to_dict()


@pytest.mark.parametrize(
    "shape, expected",
    [
        (["N", 13], "list<float32>[13]"),
        ([None, 13], "list<float32>[13]"),
        ([1, 13], "list<float32>[13]"),
        ([-1, 13], "list<float32>[13]"),
        (["N"], "float32"),
        ([1], "float32"),
        ([], "float32"),
        ([13], "list<float32>[13]"),
        ([13, 2], "list<list<float32>[2]>[13]"),
        (["N", 3, 224, 224], "list<list<list<float32>[224]>[224]>[3]"),
        (["N", "T"], "list<float32>"),
        (["N", "T", 8], "list<list<float32>[8]>"),
        (["N", 0], "list<float32>"),
    ],
)
def test_the_first_axis_is_the_rows_where_it_is_free_or_one(shape: list[Any], expected: str, tmp_path: Path) -> None:
    assert fields(make.identity("float32", shape), tmp_path) == ({"x": expected}, {"y": expected})


@pytest.mark.parametrize("kind", sorted(make.ELEMENTS))
def test_each_element_type_has_its_scalar(kind: str, tmp_path: Path) -> None:
    served = "float32" if kind == "bfloat16" else kind  # neither Arrow nor numpy has bfloat16
    assert fields(make.identity(kind, ["N"]), tmp_path)[0] == {"x": served}


def test_initializers_are_no_inputs(tmp_path: Path) -> None:
    model = make.linear()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 1]))
    assert fields(model, tmp_path)[0] == {"tensor": "list<float32>[3]"}


def test_tensor_fields_rename_the_inputs_in_order(tmp_path: Path) -> None:
    assert fields(make.linear(), tmp_path, tensor_fields=["inputs"])[0] == {"inputs": "list<float32>[3]"}
    for wrong in (["a", "b"],):
        with pytest.raises(BadInput, match=r"tensor_fields has 2 names, model 'm\.onnx' has 1 inputs: tensor"):
            fields(make.linear(), tmp_path, tensor_fields=wrong)


def test_given_types_may_say_more_than_the_model(tmp_path: Path) -> None:
    free = make.identity("float32", ["N", "T"])
    for given in ("list<float32>", "list<float32>[7]", "list<list<float32>>", "list<list<float32>[7]>"):
        assert fields(free, tmp_path, inputs={"x": given})[0] == {"x": given}
    unknown = make.onnx_model([], {"x": ("float32", ["N"])}, {"y": ("float32", None)})
    assert fields(unknown, tmp_path, outputs={"y": "list<float32>[2]"})[1] == {"y": "list<float32>[2]"}
    with pytest.raises(BadInput, match=r"output 'y' .* has no shape"):
        fields(unknown, tmp_path)


@pytest.mark.parametrize(
    "given, named",
    [
        ({"tensor": "list<float64>[3]"}, "tensor is list<float64>[3], the model has list<float32>[3]"),
        ({"tensor": "list<float32>[4]"}, "tensor is list<float32>[4]"),
        ({"tensor": "list<float32>"}, "tensor is list<float32>"),
        ({"tensor": "list<float32?>[3]"}, "tensor is list<float32?>[3]"),
        ({"tensor": "float32"}, "tensor is float32"),
        ({"other": "list<float32>[3]"}, "names 'other', the model has tensor"),
        ({"tensor": "list<float32>[3]", "other": "bool"}, "names 'other'"),
        ({"tensor": "lisst"}, "tensor"),
    ],
)
def test_given_types_that_disagree_name_the_field(given: dict[str, str], named: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        fields(make.linear(), tmp_path, inputs=given)
    assert named in str(refused.value)


@pytest.mark.parametrize("element, name", sorted(framework._UNSUPPORTED.items()))
def test_element_types_that_devices_cannot_serve_are_refused_by_name(element: int, name: str, tmp_path: Path) -> None:
    model = make.identity()
    model.graph.input[0].type.tensor_type.elem_type = element
    with pytest.raises(BadInput, match=f"input 'x' of model 'm.onnx' has elements of type {name}:"):
        fields(model, tmp_path)


def test_the_table_of_element_types_is_that_of_onnx() -> None:
    for element, name in framework._UNSUPPORTED.items():
        assert TensorProto.DataType.Name(element).lower() == name
    assert set(TensorProto.DataType.values()) == set(framework._ELEMENTS) | set(framework._UNSUPPORTED)


@pytest.mark.parametrize(
    "type_, name",
    [
        (helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [])), "sequence"),
        (helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, [])), "map"),
        (helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [])), "optional"),
        (helper.make_sparse_tensor_type_proto(1, [2]), "sparse tensor"),
    ],
)
def test_values_that_are_no_tensors_are_refused_by_name(type_: Any, name: str, tmp_path: Path) -> None:
    model = make.identity()
    model.graph.output[0].type.CopyFrom(type_)
    with pytest.raises(BadInput, match=f"output 'y' of model 'm.onnx' is a {name}"):
        fields(model, tmp_path)


def _loads(model: onnx.ModelProto) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def _accepted(model: onnx.ModelProto, tmp_path: Path) -> bool:
    try:
        check_version(inspect(make.save(model, tmp_path / "m.onnx")))
    except BadInput:
        return False
    return True


@pytest.mark.skipif(onnxruntime.__version__ != "1.31.1", reason="the table is about onnxruntime 1.31.1")
@pytest.mark.parametrize("domain, newest", sorted(framework.NEWEST_OPSETS.items()))
def test_the_table_of_limits_is_what_onnxruntime_itself_says(domain: str, newest: int, tmp_path: Path) -> None:
    for version in (newest, newest + 1):
        node = helper.make_node("Identity", ["x"], ["y"])
        fields = {"x": ("bool", ["N"])}, {"y": ("bool", ["N"])}
        model = make.onnx_model([node], *fields, opsets={domain: version})
        assert _loads(model) == _accepted(model, tmp_path) == (version == newest)


@pytest.mark.skipif(onnxruntime.__version__ != "1.31.1", reason="the table is about onnxruntime 1.31.1")
def test_the_newest_ir_version_is_what_onnxruntime_itself_says(tmp_path: Path) -> None:
    for ir in (framework.NEWEST_IR, framework.NEWEST_IR + 1):
        model = make.linear(ir=ir)
        assert _loads(model) == _accepted(model, tmp_path) == (ir == framework.NEWEST_IR)


def test_a_file_newer_than_the_runtime_says_what_was_found_and_what_runs(tmp_path: Path) -> None:
    path = make.save(make.linear(ir=14), tmp_path / "m.onnx")
    with pytest.raises(BadInput, match=r"IR version 14, onnxruntime 1\.31\.1 runs up to 13"):
        check_version(inspect(path))
    path = make.save(make.linear(opsets={"": 28}), tmp_path / "m.onnx")
    with pytest.raises(BadInput, match=r"opset 28 of ai\.onnx, onnxruntime 1\.31\.1 runs up to 26"):
        check_version(inspect(path))


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_model_without_inputs_or_outputs_is_refused(side: str, tmp_path: Path) -> None:
    model = make.linear()
    model.graph.ClearField(side)
    with pytest.raises(BadInput, match=f"has no {side}s"):
        inspect(make.save(model, tmp_path / "m.onnx"))


def external(folder: Path, location: str) -> Path:
    """`linear()` with its weights in another file."""
    model = make.linear()
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value="12")
    tensor.ClearField("raw_data")
    return make.save(model, folder / "m.onnx")


def test_weights_beside_the_model_are_found(tmp_path: Path) -> None:
    path = external(tmp_path, "weights/w.bin")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "w.bin").write_bytes(np.zeros(3, np.float32).tobytes())
    assert external_files(inspect(path), tmp_path) == {"weights/w.bin": tmp_path / "weights" / "w.bin"}
    (tmp_path / "weights" / "w.bin").write_bytes(b"short")
    with pytest.raises(BadInput, match=r"12 bytes in 'weights/w\.bin', it has 5"):
        external_files(inspect(path), tmp_path)


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "", "a/../w.bin", "missing.bin", "a\\w.bin", "folder", "./w.bin"]
)
def test_weights_anywhere_else_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(12))
    (tmp_path / "p" / "folder").mkdir(parents=True)
    (tmp_path / "p" / "w.bin").write_bytes(bytes(12))
    with pytest.raises(BadInput, match="keeps weights in"):
        external_files(inspect(external(tmp_path / "p", location)), tmp_path / "p")


def test_weights_behind_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(12))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "link.bin").symlink_to(tmp_path / "w.bin")
    (tmp_path / "p" / "dir").symlink_to(tmp_path)
    for location in ("link.bin", "dir/w.bin"):
        with pytest.raises(BadInput, match="keeps weights in"):
            external_files(inspect(external(tmp_path / "p", location)), tmp_path / "p")
