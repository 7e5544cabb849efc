"""What tritonclient[http] does with an agent that lets clients load and unload: argument 1 is its address."""

import sys

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

client = http.InferenceServerClient(sys.argv[1])
rows = http.InferInput("x", [1, 3], "FP32")
rows.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))


def index():
    return {each["name"]: each["state"] for each in client.get_model_repository_index()}


def refused(what):
    try:
        what()
    except InferenceServerException as error:
        return error.status()
    raise AssertionError("not refused")


assert client.infer("demo", [rows]).as_numpy("y").tolist() == [[12.0]]
client.unload_model("demo")
client.unload_model("demo")  # a second time changes nothing
assert not client.is_model_ready("demo") and client.is_server_ready()
assert index() == {"demo": "UNAVAILABLE"}
assert refused(lambda: client.infer("demo", [rows])) == "503"
assert refused(lambda: client.unload_model("other")) == "404"
assert refused(lambda: client.load_model("other")) == "404"
client.load_model("demo")
assert client.is_model_ready("demo") and index() == {"demo": "READY"}
assert client.infer("demo", [rows]).as_numpy("y").tolist() == [[12.0]]
client.close()
