"""The door of the Open Inference Protocol v2, through real sockets."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from columns.oip import encode_request
from columns.oip_tensors import Tensor
from tests.edge_agent.served import VERSION, Served
from tests.edge_agent.test_split import add_steps
from tests.runtimes.models import IR, OPSET, linear

RAW = "Inference-Header-Content-Length"
ELEMENTS = {
    "BOOL": TensorProto.BOOL, "UINT8": TensorProto.UINT8, "UINT16": TensorProto.UINT16, "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64, "INT8": TensorProto.INT8, "INT16": TensorProto.INT16, "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64, "FP16": TensorProto.FLOAT16, "FP32": TensorProto.FLOAT, "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16, "BYTES": TensorProto.STRING,
}  # fmt: skip
SCALARS = {"BOOL": "bool", "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "float32"}


@pytest.fixture
def demo(served):
    served.add(validations={"high": "out.y[0] > 5"})
    return served


def model(nodes, inputs, outputs):
    infos = [
        [helper.make_tensor_value_info(n, ELEMENTS[kind], shape) for n, (kind, shape) in side.items()]
        for side in (inputs, outputs)
    ]
    made = helper.make_model(
        helper.make_graph(nodes, "g", *infos), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR
    )
    onnx.checker.check_model(made)
    return made.SerializeToString()


def identity(datatype, shape):
    return model([helper.make_node("Identity", ["x"], ["y"])], {"x": (datatype, shape)}, {"y": (datatype, shape)})


def kind(datatype):
    return SCALARS.get(datatype) or ("string" if datatype == "BYTES" else datatype.lower())


def ask(served, tensors, *, raw=False, path="/v2/models/demo/infer", headers=None, **more):
    body, size = encode_request(tensors, raw=raw)
    if more:
        head = {**json.loads(body[:size]), **more}
        text = json.dumps(head).encode()
        body, size = text + (body[size:] if size is not None else b""), len(text) if size is not None else None
    said = {**({RAW: str(size)} if size is not None else {}), **(headers or {})}
    return served.post(path, data=body, headers=said)


def floats(values, name="x"):
    return Tensor(name, "FP32", np.array(values, np.float32))


# One native step: tensors as they are


def test_a_request_is_answered_in_json(demo):
    answer = ask(demo, [floats([[1, 2, 3], [0.5, 0, 0]])], id="call-7")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
        "model_name": "demo",
        "model_version": VERSION,
        "id": "call-7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 1], "data": [12.0, 1.0]}],
    }


def test_raw_tensors_are_answered_raw_only_when_asked(demo):
    plain = ask(demo, [floats([[1, 2, 3]])], raw=True)
    assert plain.headers["Content-Type"] == "application/json"
    assert RAW not in plain.headers
    answer = ask(demo, [floats([[1, 2, 3]])], raw=True, parameters={"binary_data_output": True})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    size = int(answer.headers[RAW])
    assert json.loads(answer.content[:size])["outputs"][0]["parameters"] == {"binary_data_size": 4}
    assert np.frombuffer(answer.content[size:], np.float32) == [12.0]


@pytest.mark.parametrize("datatype", sorted(ELEMENTS))
@pytest.mark.parametrize("raw", [True, False])
def test_every_datatype_goes_through_a_model_and_back(served, datatype, raw):
    served.add(
        model=identity(datatype, ["n", 2]),
        golden=b"[]",
        step={"input": {"x": f"list<{kind(datatype)}>[2]"}, "output": {"y": f"list<{kind(datatype)}>[2]"}},
    )
    assert served.get("/v2/models/demo").json()["inputs"] == [{"name": "x", "datatype": datatype, "shape": [-1, 2]}]
    values = (
        np.array([["a", "é"]], object)
        if datatype == "BYTES"
        else np.array([[1, 0]]).astype({"BF16": "float32"}.get(datatype, kind(datatype)))
    )
    answer = ask(served, [Tensor("x", datatype, values)], raw=raw)
    assert answer.status_code == 200, answer.text
    output = answer.json()["outputs"][0]
    assert (output["datatype"], output["shape"]) == (datatype, [1, 2])
    assert output["data"] == values.reshape(-1).tolist()


def test_scalars_and_tensors_whose_axes_are_no_rows_are_served(served):
    served.add("scalar", model=identity("FP32", []), golden=b"[]", step={
        "input": {"x": "float32"}, "output": {"y": "float32"}})  # fmt: skip
    answer = ask(served, [Tensor("x", "FP32", np.float32(2.5).reshape(()))], path="/v2/models/scalar/infer")
    assert answer.json()["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [], "data": [2.5]}]
    nodes = [helper.make_node("NonZero", ["x"], ["y"])]
    served.add("places", model=model(nodes, {"x": ("FP32", ["a", "b"])}, {"y": ("INT64", [2, "k"])}), golden=b"[]",
               step={"input": {"x": "list<float32>"}, "output": {"y": "list<list<int64>>[2]"}})  # fmt: skip
    answer = ask(served, [floats([[0, 1, 0], [1, 0, 1]])], path="/v2/models/places/infer")
    assert answer.json()["outputs"][0] == {
        "name": "y",
        "datatype": "INT64",
        "shape": [2, 3],
        "data": [0, 1, 1, 1, 0, 2],
    }
    row = served.post("/logs?pipeline=places").json()[0]
    assert row["in"] == {"x": [0, 1, 0, 1, 0, 1]}
    assert json.loads(row["metadata"]["shapes"]) == {"in.x": [2, 3], "out.y": [2, 3]}


def test_a_request_is_one_row_of_the_log_flat_with_its_shapes(demo):
    ask(demo, [floats([[1, 2, 3], [0.5, 0, 0]])], headers={"X-Request-Id": "r-1"})
    (row,) = demo.post("/logs").json()
    assert row["in"] == {"x": [1.0, 2.0, 3.0, 0.5, 0.0, 0.0]}
    assert row["out"] == {"y": [12.0, 1.0]}
    assert row["anomaly"] == {"count": 1, "high": True}
    assert json.loads(row["metadata"]["shapes"]) == {"in.x": [2, 3], "out.y": [2, 1]}
    assert row["metadata"]["request_id"] == "r-1"
    assert len(row["metadata"]["elapsed"]) == 2


def test_validations_that_cannot_look_at_rows_are_named_as_dropped(served):
    nodes = [helper.make_node("Flatten", ["x"], ["y"], axis=0)]
    served.add(model=model(nodes, {"x": ("FP32", ["a", 2])}, {"y": ("FP32", [1, "k"])}), golden=b"[]",
               validations={"high": "out.y[0] > 0"},
               step={"input": {"x": "list<float32>[2]"}, "output": {"y": "list<float32>"}})  # fmt: skip
    assert ask(served, [floats([[1, 2], [3, 4]])]).status_code == 200
    (row,) = served.post("/logs").json()
    assert row["anomaly"] == {"count": 0, "high": False}
    assert row["metadata"]["dropped"] == ["anomaly.high"]


def test_several_rows_for_a_model_of_one_row_at_a_time_go_one_by_one(served):
    served.add(model=linear(rows=1))
    assert served.get("/v2/models/demo").json()["inputs"][0]["shape"] == [1, 3]
    assert ask(served, [floats([[1, 2, 3], [0.5, 0, 0]])]).json()["outputs"][0]["data"] == [12.0, 1.0]
    assert len(served.post("/logs").json()) == 2


def test_a_pipeline_of_several_steps_answers_by_rows(tmp_path, front):
    with Served(tmp_path, front) as served:
        add_steps(served)
        answer = ask(served, [floats([[1, 2, 3], [0.5, 0, 0]])], raw=True)
        assert answer.json()["outputs"][0] == {"name": "z", "datatype": "FP32", "shape": [2, 1], "data": [36.0, 3.0]}
        assert len(served.post("/logs").json()) == 2
        assert served.get("/v2/models/demo").json()["platform"] == "edgepack_pipeline"


def test_a_body_without_json_is_the_only_inputs_tensor(demo):
    body = np.array([[1, 2, 3], [0.5, 0, 0]], np.float32).tobytes()
    answer = demo.post("/v2/models/demo/infer", data=body, headers={RAW: "0"})
    size = int(answer.headers[RAW])
    assert np.frombuffer(answer.content[size:], np.float32).tolist() == [12.0, 1.0]
    assert demo.post("/v2/models/demo/infer", data=body[:-1], headers={RAW: "0"}).status_code == 400


def test_requested_outputs_are_answered_alone_and_unknown_ones_refused(served):
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])]
    sides = {"x": ("FP32", ["n"])}, {"y": ("FP32", ["n"]), "z": ("FP32", ["n"])}
    served.add(model=model(nodes, *sides), golden=b"[]", step={
        "input": {"x": "float32"}, "output": {"y": "float32", "z": "float32"}})  # fmt: skip
    answer = ask(served, [floats([1.5])], outputs=[{"name": "z"}])
    assert [(each["name"], each["data"]) for each in answer.json()["outputs"]] == [("z", [-1.5])]
    refusal = ask(served, [floats([1.5])], outputs=[{"name": "w"}])
    assert refusal.status_code == 400
    assert refusal.json() == {"error": "no output 'w': there is 'y', 'z'"}


@pytest.mark.parametrize(("coding", "pack", "unpack"), [
    ("gzip", gzip.compress, gzip.decompress), ("deflate", zlib.compress, zlib.decompress)])  # fmt: skip
def test_bodies_are_unpacked_and_packed_as_asked(demo, coding, pack, unpack):
    body = encode_request([floats([[1, 2, 3]])], raw=False)[0]
    headers = {"Content-Encoding": coding, "Accept-Encoding": coding}
    answer = demo.post("/v2/models/demo/infer", data=pack(body), headers=headers)
    assert answer.headers["Content-Encoding"] == coding
    assert answer.json()["outputs"][0]["data"] == [12.0]  # requests unpacks
    assert demo.post("/v2/models/demo/infer", data=pack(body)[:-3], headers=headers).status_code == 400
    assert demo.post("/v2/models/demo/infer", data=b"\x01" + body, headers=headers).status_code == 400


def test_a_coding_that_is_not_known_and_one_that_swells_are_refused(demo):
    assert demo.post("/v2/models/demo/infer", data=b"x", headers={"Content-Encoding": "br"}).status_code == 415
    bomb = gzip.compress(bytes(65 << 20))
    assert demo.post("/v2/models/demo/infer", data=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ([floats([[1, 2, 3]], "z")], "unknown field 'z'"),
        ([], "no field 'x'"),
        ([floats([[1, 2]])], "input 'x' has shape [1, 2], expected [-1, 3]"),
        ([floats([1, 2, 3])], "input 'x' has shape [3], expected [-1, 3]"),
        ([Tensor("x", "FP64", np.ones((1, 3)))], "input 'x' is FP64, expected FP32"),
        ([Tensor("x", "BYTES", np.array([["a", "b", "c"]], object))], "input 'x' is BYTES, expected FP32"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_in_the_protocols_words(demo, tensors, said):
    for raw in (True, False):
        answer = ask(demo, tensors, raw=raw)
        assert answer.status_code == 400
        assert list(answer.json()) == ["error"]
        assert said in answer.json()["error"]
    assert ask(demo, [floats([[1, 2, 3]])]).status_code == 200
    assert len(demo.post("/logs").json()) == 1


def test_narrower_numbers_are_widened_where_nothing_is_lost(demo):
    for datatype in ("FP16", "INT16", "BF16"):
        dtype = {"FP16": "float16", "INT16": "int16", "BF16": "float32"}[datatype]
        answer = ask(demo, [Tensor("x", datatype, np.array([[1, 2, 3]], dtype))], raw=True)
        assert answer.json()["outputs"][0]["data"] == [12.0]


def test_a_step_of_single_rows_refuses_two(served):
    served.add(step={"batch": "single"})
    assert ask(served, [floats([[1, 2, 3]])]).status_code == 200
    answer = ask(served, [floats([[1, 2, 3], [1, 2, 3]])])
    assert answer.status_code == 400
    assert 'batch = "single"' in answer.json()["error"]


@pytest.mark.parametrize("size", ["-1", "x", "99999", "1e3", "9" * 30])
def test_a_json_length_that_cannot_be_is_refused(demo, size):
    body = encode_request([floats([[1, 2, 3]])], raw=False)[0]
    answer = demo.post("/v2/models/demo/infer", data=body, headers={RAW: size})
    assert answer.status_code == 400
    assert "error" in answer.json()


# What is served


def test_health_server_and_models_are_told_in_json(demo):
    assert demo.get("/v2/health/live").json() == {"live": True}
    assert demo.get("/v2/health/ready").json() == {"ready": True}
    extensions = ["binary_tensor_data", "model_repository", "model_configuration", "statistics"]
    assert demo.get("/v2").json()["extensions"] == extensions
    assert demo.get("/v2/models").json() == {"models": ["demo"]}
    assert demo.get("/v2/models/demo").json() == {
        "name": "demo",
        "versions": [VERSION],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 1]}],
    }
    assert demo.get("/v2/models/demo/ready").json() == {"name": "demo", "ready": True}
    assert demo.post("/v2/repository/index", data=b"{}").json() == [
        {"name": "demo", "version": VERSION, "state": "READY", "reason": ""}
    ]


def test_a_server_without_pipelines_is_live_and_not_ready(served):
    assert served.get("/v2/health/live").status_code == 200
    assert served.get("/v2/health/ready").status_code == 503
    assert served.get("/v2/models/demo/ready").status_code == 503


def test_versions_are_known_by_their_uuid(demo):
    for path in (f"/v2/models/demo/versions/{VERSION}", f"/v2/models/demo/versions/{VERSION}/ready"):
        assert demo.get(path).status_code == 200
    assert ask(demo, [floats([[1, 2, 3]])], path=f"/v2/models/demo/versions/{VERSION}/infer").status_code == 200
    for path in ("/v2/models/demo/versions/7", "/v2/models/other", "/v2/models/other/ready"):
        answer = demo.get(path)
        assert answer.status_code == 404
        assert list(answer.json()) == ["error"]


def test_a_number_names_a_version_where_its_bundle_has_one(served):
    served.add(number=7)
    assert served.get("/v2/models/demo").json()["versions"] == [VERSION, "7"]
    for version in (VERSION, "7"):
        path = f"/v2/models/demo/versions/{version}/infer"
        assert ask(served, [floats([[1, 2, 3]])], path=path).status_code == 200
        assert served.get(f"/v2/models/demo/versions/{version}/ready").status_code == 200
    assert served.post("/predict?version=7", data=b'{"x": [1, 2, 3]}').status_code == 200
    refused = served.get("/v2/models/demo/versions/8/ready")
    assert refused.status_code == 404
    assert f"there is '{VERSION}' or '7'" in refused.json()["error"]


def test_loading_what_is_loaded_is_done_and_unloading_is_refused(demo):
    assert demo.post("/v2/repository/models/demo/load", data=b"{}").status_code == 200
    assert demo.post("/v2/repository/models/other/load", data=b"{}").status_code == 404
    answer = demo.post("/v2/repository/models/demo/unload", data=b"{}")
    assert answer.status_code == 403
    assert "stays loaded" in answer.json()["error"]
    assert "EDGEPACK_MODEL_CONTROL=explicit" in answer.json()["error"]
    assert ask(demo, [floats([[1, 2, 3]])]).status_code == 200


def test_the_openapi_document_lists_every_route_of_every_door(demo):
    from edge_agent.doors import TABLE

    paths = demo.get("/openapi.json").json()["paths"]
    for route in TABLE.routes:
        if route.pattern != "/pipelines/{pipeline}":  # there one by one, with their rows
            assert route.method.lower() in paths[route.pattern], route.pattern
    assert paths["/v2/models/{pipeline}/infer"]["post"]["parameters"][0]["schema"]["enum"] == ["demo"]


def test_numbers_that_are_not_finite_go_in_raw_and_are_null_in_json(served):
    served.add(
        model=identity("FP32", ["n"]), golden=b"[]", step={"input": {"x": "float32"}, "output": {"y": "float32"}}
    )
    answer = ask(served, [floats([1.5, np.nan, np.inf])], raw=True)
    assert answer.json()["outputs"][0]["data"] == [1.5, None, None]
    assert served.post("/logs").json()[0]["out"] == {"y": [1.5, None, None]}
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[NaN]}]}'
    refusal = served.post("/v2/models/demo/infer", data=body)
    assert refusal.status_code == 400
    assert "no NaN" in refusal.json()["error"]


def test_text_that_is_no_utf8_is_refused_by_its_name(served):
    served.add(model=identity("BYTES", ["n"]), golden=b"[]", step={"input": {"x": "string"}, "output": {"y": "string"}})
    answer = ask(served, [Tensor("x", "BYTES", np.array([b"\xff"], object))], raw=True)
    assert answer.status_code == 400
    assert "'x' has an element that is not UTF-8" in answer.json()["error"]
