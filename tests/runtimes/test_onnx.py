from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from bundle.pipeline import StepSpec
from edgepack.errors import BadInput, RuntimeFailed
from runtimes.onnx import OnnxRuntime
from tests.runtimes.models import graph, identity, linear, lookup, step


@pytest.fixture
def load(tmp_path):
    def make(model: bytes, spec: StepSpec | None = None) -> OnnxRuntime:
        path = tmp_path / "model.onnx"
        path.write_bytes(model)
        return OnnxRuntime.load(path, spec or step())

    return make


def objects(*values):
    made = np.empty(len(values), dtype=object)
    made[:] = list(values)
    return made


def test_all_rows_run_at_once_when_the_first_axis_is_free(load):
    answer = load(linear()).infer({"x": np.ones((5, 3), np.float32)}, 5)
    assert answer["y"].shape == (5, 1)
    assert answer["y"].dtype == np.float32
    assert (answer["y"] == 6).all()


def test_rows_run_one_by_one_when_the_first_axis_is_one(load):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert load(linear(rows=1)).infer({"x": rows}, 2)["y"].tolist() == [[6.0], [24.0]]


def test_a_larger_fixed_first_axis_makes_the_whole_tensor_one_row(load):
    spec = step(input={"x": "list<list<float32>[3]>[4]"}, output={"y": "list<list<float32>[1]>[4]"})
    answer = load(linear(rows=4), spec).infer({"x": np.ones((2, 4, 3), np.float32)}, 2)
    assert answer["y"].shape == (2, 4, 1)


def test_the_same_model_takes_single_rows_of_four_when_the_schema_says_rows(load):
    """A rank that fits neither way is refused at loading, not at the first request."""
    with pytest.raises(RuntimeFailed, match="do not fit"):
        load(linear(), step(input={"x": "list<list<list<float32>[3]>[4]>[2]"}))


def test_a_scalar_a_row_is_a_field_without_a_list(load):
    spec = step(input={"x": "int64"}, output={"y": "float32"})
    assert load(lookup(), spec).infer({"x": np.array([2, 0])}, 2)["y"].tolist() == [30.0, 10.0]


def test_tensor_fields_rename_the_inputs(load):
    spec = step(input={"tensor": "list<float32>[3]"}, tensor_fields=["tensor"])
    runtime = load(linear(), spec)
    assert runtime.input.names == ("tensor",)
    assert runtime.infer({"tensor": np.ones((1, 3), np.float32)}, 1)["y"].tolist() == [[6.0]]


def test_strings_go_in_and_out_as_python_values(load):
    spec = step(input={"x": "list<string>"}, output={"y": "list<string>"})
    answer = load(identity("string", ["n", "k"]), spec).infer({"x": objects(["a", "b"], ["c", "ü"])}, 2)
    assert answer["y"].tolist() == [["a", "b"], ["c", "ü"]]
    assert answer["y"].ndim == 1


def test_lists_of_different_length_run_row_by_row(load):
    spec = step(input={"x": "list<float32>"}, output={"y": "list<float32>"})
    answer = load(identity("float32", ["n", "k"]), spec).infer({"x": objects([1.0], [2.0, 3.0])}, 2)
    assert answer["y"].tolist() == [[1.0], [2.0, 3.0]]


def test_one_row_that_is_ragged_in_itself_is_refused_by_its_field(load):
    spec = step(input={"x": "list<list<float32>>"}, output={"y": "list<list<float32>>"})
    with pytest.raises(BadInput, match=r"'x'.*not equally long") as caught:
        load(identity("float32", ["n", "k", "m"]), spec).infer({"x": objects([[1.0], [2.0, 3.0]])}, 1)
    assert caught.value.field == "x"


def test_a_wrong_shape_is_the_callers_fault_and_names_the_field(load):
    with pytest.raises(BadInput, match="invalid dimensions") as caught:
        load(linear()).infer({"x": np.ones((1, 4), np.float32)}, 1)
    assert caught.value.field == "x"
    assert "ONNXRuntimeError" not in str(caught.value)


def test_rows_that_the_engine_gives_up_on_are_a_runtime_failure_and_the_next_run_works(load, capfd):
    runtime = load(linear(declared="k"), step(input={"x": "list<float32>"}))
    with pytest.raises(RuntimeFailed, match=r"'linear'.*dimension mismatch"):
        runtime.infer({"x": np.ones((1, 4), np.float32)}, 1)
    assert runtime.infer({"x": np.ones((1, 3), np.float32)}, 1)["y"].tolist() == [[6.0]]
    assert capfd.readouterr() == ("", "")


def test_a_value_that_points_outside_of_a_table_is_the_callers_fault(load):
    runtime = load(lookup(), step(input={"x": "int64"}, output={"y": "float32"}))
    with pytest.raises(BadInput, match="out of data bounds"):
        runtime.infer({"x": np.array([99])}, 1)


@pytest.mark.parametrize("junk", [b"", b"not a model", linear()[:-20]])
def test_a_file_that_is_no_model_does_not_load(load, junk, capfd):
    with pytest.raises(RuntimeFailed, match="model 'linear' does not load in onnxruntime"):
        load(junk)
    assert capfd.readouterr().err == ""


def test_a_bundle_that_contradicts_its_model_does_not_load(load):
    with pytest.raises(RuntimeFailed, match="has the inputs 'x': the bundle says 'z'"):
        load(linear(), step(input={"z": "list<float32>[3]"}))
    with pytest.raises(RuntimeFailed, match="no output 'z': it has y"):
        load(linear(), step(output={"z": "list<float32>[1]"}))


def test_outputs_that_do_not_follow_the_rows_are_refused(load):
    with pytest.raises(RuntimeFailed, match="gave 'y' with shape"):
        load(linear(), step(output={"y": "float32"})).infer({"x": np.ones((2, 3), np.float32)}, 2)


def test_a_missing_engine_is_one_line_that_says_what_to_install(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadInput, match="onnxruntime is not installed: pip install"):
        load(linear())


def test_a_big_request_leaves_the_arena_usable(load):
    runtime = load(linear())
    rows = np.ones((500_000, 3), np.float32)
    assert (runtime.infer({"x": rows}, len(rows))["y"] == 6).all()
    assert runtime.infer({"x": rows[:1]}, 1)["y"].tolist() == [[6.0]]


def test_an_output_that_is_no_row_is_computed_row_by_row(load):
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    model = graph(nodes, {"x": ("float32", ["n", 3])}, {"y": ("float32", [])})
    runtime = load(model, step(output={"y": "float32"}))
    found = runtime.infer({"x": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}, 2)
    assert found["y"].tolist() == [6.0, 15.0]
    assert runtime.infer_tensors({"x": np.ones((2, 3), np.float32)})["y"].tolist() == 6.0
    runtime.close()


def test_bfloat16_is_float32_on_both_sides(load):
    kind = TensorProto.BFLOAT16
    infos = [[helper.make_tensor_value_info(name, kind, ["n", 2])] for name in ("x", "y")]
    made = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", *infos)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    types = {"input": {"x": "list<float32>[2]"}, "output": {"y": "list<float32>[2]"}}
    runtime = load(model.SerializeToString(), step(**types))
    assert [each.datatype for each in (*runtime.tensor_inputs, *runtime.tensor_outputs)] == ["BF16", "BF16"]
    found = runtime.infer({"x": np.array([[1.5, 3.14159274]], np.float32)}, 1)["y"]
    assert found.dtype == np.float32
    assert found.tolist() == [[1.5, 3.140625]]
    runtime.close()
