"""What NVIDIA's tritonclient[http] does with an agent: argument 1 is its address without the scheme."""

import sys

import ml_dtypes
import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

address, version = sys.argv[1:3]
client = http.InferenceServerClient(address)


def tensor(name, array, datatype, raw):
    given = http.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=raw)
    return given


def ask(model, array, datatype, raw=True, raw_output=True, **more):
    outputs = [http.InferRequestedOutput("y", binary_data=raw_output)]
    return client.infer(model, [tensor("x", array, datatype, raw)], outputs=outputs, **more)


assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("demo") and client.is_model_ready("demo", version)
assert not client.is_model_ready("other")
extensions = ["binary_tensor_data", "model_repository", "model_configuration", "statistics"]
assert client.get_server_metadata()["extensions"] == extensions
metadata = client.get_model_metadata("demo")
assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}], metadata
assert {each["name"] for each in client.get_model_repository_index()} >= {"demo"}

rows = np.array([[1, 2, 3], [0.5, 0, 0]], np.float32)
for raw in (True, False):
    for raw_output in (True, False):
        found = ask("demo", rows, "FP32", raw, raw_output, request_id="call-1")
        assert found.as_numpy("y").tolist() == [[12.0], [1.0]]
        assert found.get_response()["id"] == "call-1"
# without a word on outputs the client asks for all of them raw
assert client.infer("demo", [tensor("x", rows, "FP32", True)]).as_numpy("y").tolist() == [[12.0], [1.0]]
assert ask("demo", rows, "FP32", model_version=version).as_numpy("y").tolist() == [[12.0], [1.0]]
for packing in ("gzip", "deflate"):
    for sent, answered in ((packing, None), (None, packing), (packing, packing)):
        found = ask("demo", rows, "FP32", request_compression_algorithm=sent, response_compression_algorithm=answered)
        assert found.as_numpy("y").tolist() == [[12.0], [1.0]]

for datatype, dtype in (
    ("BOOL", bool), ("UINT8", "u1"), ("UINT16", "u2"), ("UINT32", "u4"), ("UINT64", "u8"), ("INT8", "i1"),
    ("INT16", "i2"), ("INT32", "i4"), ("INT64", "i8"), ("FP16", "f2"), ("FP32", "f4"), ("FP64", "f8"),
):  # fmt: skip
    values = np.array([[0, 1], [1, 1]]).astype(dtype)
    for raw in (True, False) if datatype != "FP16" else (True,):
        found = ask(datatype.lower(), values, datatype, raw).as_numpy("y")
        assert found.dtype == values.dtype and found.tolist() == values.tolist(), (datatype, raw, found)
texts = np.array([["a", "é"], ["", "long " * 100]], dtype=object)
for raw in (True, False):
    found = ask("bytes", texts, "BYTES", raw).as_numpy("y")
    assert [[each.decode() for each in row] for row in found.tolist()] == texts.tolist(), found
halves = np.array([[1.5, -2.0], [0.0, 256.0]], ml_dtypes.bfloat16)
assert ask("bf16", halves, "BF16").as_numpy("y").astype("f4").tolist() == halves.astype("f4").tolist()

whole = http.InferenceServerClient.generate_request_body([tensor("x", rows, "FP32", True)])
assert whole[1] is not None
futures = [client.async_infer("demo", [tensor("x", rows, "FP32", True)]) for _ in range(8)]
assert all(future.get_result().as_numpy("y").tolist() == [[12.0], [1.0]] for future in futures)

configuration = client.get_model_config("demo")
assert configuration["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}], configuration
assert configuration["max_batch_size"] == 0
assert client.get_model_config("demo", version)["name"] == "demo"
(counted,) = client.get_inference_statistics("demo")["model_stats"]
assert (counted["name"], counted["version"]) == ("demo", version)
succeeded = counted["inference_stats"]["success"]
assert succeeded["count"] == counted["execution_count"] > 10 and succeeded["ns"] > 0, counted
assert counted["inference_count"] > counted["execution_count"]
assert {each["name"] for each in client.get_inference_statistics()["model_stats"]} >= {"demo", "bf16"}

client.load_model("demo")
for refused in (
    lambda: client.unload_model("demo"),
    lambda: client.load_model("other"),
    lambda: ask("other", rows, "FP32"),
    lambda: ask("demo", rows[:, :2].copy(), "FP32"),
    lambda: ask("demo", rows.astype("f8"), "FP64"),
    lambda: ask("demo", rows, "FP32", model_version="7"),
    lambda: client.infer("demo", [tensor("z", rows, "FP32", True)]),
):
    try:
        refused()
    except InferenceServerException as error:
        print(error.status(), error.message())
    else:
        raise AssertionError("not refused")
client.close()
