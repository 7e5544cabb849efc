"""Asks one picture through every door of a running agent: `edgepack serve examples/digits-camera`, then this.

    python3 examples/digits-camera/ask.py [http://127.0.0.1:8080]

The standard library is enough; with pyarrow installed, Arrow is asked as well.
"""

import json
import struct
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
PICTURE = json.loads((Path(__file__).parent / "golden.json").read_text())[0]["in.image"]  # 1 × 8 × 8
FLAT = [value for rows in PICTURE for row in rows for value in row]
RECORDS, CUSTOM = "application/json; format=pandas-records", "application/json; format=wallaroo"
RAW = "Inference-Header-Content-Length"


def main() -> None:
    """Ask, and print what each door says."""
    (pipeline,) = json.loads(call("/pipelines"))["pipelines"]
    answers = {door: ask() for door, ask in doors(pipeline["id"]).items()}
    for door, (digit, chance) in answers.items():
        print(f"{door:44} {digit}  {chance:.7f}")
    if len(set(answers.values())) > 1:
        sys.exit("the doors do not agree")


def call(path: str, body: bytes | None = None, **headers: str) -> bytes:
    """One request; header names with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(URL + path, body, named), timeout=20) as answer:
        found: bytes = answer.read()
    return found


def doors(name: str) -> "dict[str, Callable[[], tuple[int, float]]]":
    """Every door with what asks it for the digit and its probability."""
    asked = {
        "Wallaroo edge, pandas-records": lambda: of_rows("/infer"),
        "Wallaroo edge, by the pipeline's name": lambda: of_rows(f"/pipelines/{name}"),
        "Wallaroo SDK": lambda: of_rows(f"/v1/api/pipelines/infer/{name}-1/{name}"),
        "Wallaroo edge, custom JSON": custom,
        "Open Inference Protocol v2, JSON": lambda: of_tensors(f"/v2/models/{name}/infer"),
        "Open Inference Protocol v2, raw tensors": lambda: of_raw_tensors(f"/v2/models/{name}/infer"),
        "KServe v1": lambda: kserve(f"/v1/models/{name}:predict"),
        "ADS, Cortex": predict,
    }
    try:
        import pyarrow
    except ImportError:
        return asked
    return {**asked, "Wallaroo edge, Arrow": lambda: arrow(pyarrow)}


def said(digit: int, chances: list[float]) -> tuple[int, float]:
    """A digit and how sure the network is, as float32 has it."""
    return digit, struct.unpack("<f", struct.pack("<f", chances[digit]))[0]


def of_rows(path: str) -> tuple[int, float]:
    (row,) = json.loads(call(path, json.dumps([{"image": PICTURE}]).encode(), Content_Type=RECORDS))
    return said(row["out"]["digit"], row["out"]["probabilities"])


def custom() -> tuple[int, float]:
    found = json.loads(call("/infer", json.dumps({"image": [PICTURE]}).encode(), Content_Type=CUSTOM))
    return said(found["digit"][0], found["probabilities"][0])


def of_tensors(path: str) -> tuple[int, float]:
    image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": FLAT}
    outputs = json.loads(call(path, json.dumps({"inputs": [image]}).encode()))["outputs"]
    found = {each["name"]: each["data"] for each in outputs}
    return said(found["digit"][0], found["probabilities"])


def of_raw_tensors(path: str) -> tuple[int, float]:
    image = {"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "parameters": {"binary_data_size": 256}}
    head = json.dumps({"inputs": [image], "parameters": {"binary_data_output": True}}).encode()
    answer = call(path, head + struct.pack("<64f", *FLAT), **{RAW: str(len(head))})
    size = answer.rindex(b"}]}") + 3  # the header of the answer says it too
    pieces: Iterator[tuple[str, bytes]] = cut(json.loads(answer[:size])["outputs"], answer[size:])
    found = dict(pieces)
    return said(struct.unpack("<q", found["digit"])[0], list(struct.unpack("<10f", found["probabilities"])))


def cut(outputs: "list[dict]", data: bytes) -> Iterator[tuple[str, bytes]]:
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        yield output["name"], data[:size]
        data = data[size:]


def kserve(path: str) -> tuple[int, float]:
    (row,) = json.loads(call(path, json.dumps({"instances": [{"image": PICTURE}]}).encode()))["predictions"]
    return said(row["digit"], row["probabilities"])


def predict() -> tuple[int, float]:
    body = json.dumps({"image": [PICTURE]}).encode()
    found = json.loads(call("/predict", body, Content_Type="application/json"))["prediction"]
    return said(found["digit"][0], found["probabilities"][0])


def arrow(pyarrow) -> tuple[int, float]:  # noqa: ANN001 - a module
    kind = "application/vnd.apache.arrow.stream"
    table, sink = pyarrow.table({"image": [PICTURE]}), pyarrow.BufferOutputStream()
    table = table.cast(pyarrow.schema([("image", pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float32()))))]))
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    path = "/infer?dataset[]=out&dataset.separator=."
    answer = call(path, sink.getvalue().to_pybytes(), Content_Type=kind, Accept=kind)
    (row,) = pyarrow.ipc.open_stream(answer).read_all().to_pylist()
    return said(row["out.digit"], row["out.probabilities"])


if __name__ == "__main__":
    main()
