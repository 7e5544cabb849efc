"""A right request for every door and format, and how its answer looks; with the pipelines that they are for."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from arch.target import host_target
from bundle.bundle import pack
from bundle.pipeline import LogPolicy, PipelineSpec
from columns.oip import encode_request
from columns.oip_tensors import Tensor
from oci.layout import write_layout
from tests.edge_agent.served import ARROW, JSON
from tests.faults.wire import Answer, Headers, Request
from tests.runtimes.models import graph, identity, linear, lookup, step

STREAM = "application/vnd.apache.arrow.stream"
CUSTOM = "application/json; format=wallaroo"
OCTETS = "application/octet-stream"
JSON_SIZE = "Inference-Header-Content-Length"
ROWS = [{"x": [1, 2, 3]}, {"x": [0.5, 0, 0]}]
SUMS = [[12.0], [1.0]]
MIXED = [{"m": [[1, 2], [3, 4]], "n": 7, "t": "a"}, {"m": [[0, 0], [0, 5]], "n": -1, "t": "é"}]


@dataclass(frozen=True)
class Right:
    """A request, and whether an answer is the right one to it."""

    name: str
    request: Request
    is_answered: Callable[[Answer], bool]


def write_bundles(place: Path) -> list[Path]:
    """The pipelines, each in an OCI layout folder of its own."""
    mixed = graph(
        [_same("m", "a"), _same("n", "b"), _same("t", "c")],
        {"m": ("float32", ["k", 2, 2]), "n": ("int64", ["k"]), "t": ("string", ["k"])},
        {"a": ("float32", ["k", 2, 2]), "b": ("int64", ["k"]), "c": ("string", ["k"])},
    )
    value = graph([_same("json", "answer")], {"json": ("string", ["k"])}, {"answer": ("string", ["k"])})
    return [
        _bundle(place, "demo", linear(), validations={"high": "out.y[0] > 5"}),
        _bundle(place, "quick", linear()),
        _bundle(place, "texts", identity("string", ["n", 2]), {"x": "list<string>[2]"}, {"y": "list<string>[2]"}),
        _bundle(place, "lookup", lookup(), {"x": "int64"}, {"y": "float32"}),
        _bundle(
            place,
            "mixed",
            mixed,
            {"m": "list<list<float32>[2]>[2]", "n": "int64", "t": "string"},
            {"a": "list<list<float32>[2]>[2]", "b": "int64", "c": "string"},
        ),
        _bundle(place, "value", value, {"json": "string"}, {"answer": "string"}),
    ]


def _same(name: str, as_: str) -> Any:
    from onnx import helper

    return helper.make_node("Identity", [name], [as_])


def _bundle(place: Path, name: str, model: bytes, takes: Any = None, gives: Any = None, **more: Any) -> Path:
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model)
    sides = {"input": takes or {"x": "list<float32>[3]"}, "output": gives or {"y": "list<float32>[1]"}}
    spec = PipelineSpec(name, [step(name, model="model.onnx", **sides)], log=LogPolicy(max_bytes="1Mi"), **more)
    index = pack(spec, {"model.onnx": folder / "model.onnx"}, b"[]", [host_target()])
    write_layout(index, folder / "layout")
    return folder / "layout"


def arrow(rows: list[dict[str, Any]], schema: Any, form: Any = pa.ipc.new_file, **options: Any) -> bytes:
    """Rows as an Arrow file or stream."""
    sink = pa.BufferOutputStream()
    with form(sink, schema, **options) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _numbers(field: str, expected: Any) -> Callable[[Answer], bool]:
    """The answer's rows have these outputs."""

    def check(answer: Answer) -> bool:
        return answer.status == 200 and [row["out"][field] for row in json.loads(answer.body)] == expected

    return check


def _said(expected: Any, *path: str) -> Callable[[Answer], bool]:
    """A part of the answer is this value."""

    def check(answer: Answer) -> bool:
        found = json.loads(answer.body)
        for part in path:
            found = found[int(part)] if part.isdigit() else found[part]
        return answer.status == 200 and bool(found == expected)

    return check


def _raw(expected: list[float]) -> Callable[[Answer], bool]:
    """The answer ends with these numbers, raw."""

    def check(answer: Answer) -> bool:
        size = int(answer.headers.get(JSON_SIZE.lower(), len(answer.body)))
        return answer.status == 200 and answer.body[size:] == np.array(expected, "<f4").tobytes()

    return check


def _answered(answer: Answer) -> bool:
    return answer.status == 200 and json.loads(answer.body) is not None


def _arrow_rows(expected: list[list[float]]) -> Callable[[Answer], bool]:
    def check(answer: Answer) -> bool:
        table = pa.ipc.open_file(pa.BufferReader(answer.body)).read_all() if answer.status == 200 else None
        return table is not None and table.column("out.y").to_pylist() == expected

    return check


def _post(target: str, body: bytes, kind: str = "", more: Headers = ()) -> Request:
    return Request("POST", target, (*((("Content-Type", kind),) if kind else ()), *more), body)


def _oip() -> list[Right]:
    tensors = [Tensor("x", "FP32", np.array([[1, 2, 3], [0.5, 0, 0]], np.float32))]
    plain, (raw, size) = encode_request(tensors, raw=False)[0], encode_request(tensors, raw=True)
    asks_raw = raw.replace(b'{"inputs"', b'{"parameters":{"binary_data_output":true},"inputs"', 1)
    texts, texts_size = encode_request([Tensor("x", "BYTES", np.array([["a", "bc"]], object))], raw=True)
    mixed, mixed_size = encode_request(
        [
            Tensor("m", "FP32", np.array([row["m"] for row in MIXED], np.float32)),
            Tensor("n", "INT64", np.array([row["n"] for row in MIXED])),
            Tensor("t", "BYTES", np.array([row["t"] for row in MIXED], object)),
        ],
        raw=True,
    )
    assert size is not None
    packed: Headers = ((JSON_SIZE, str(size)), ("Content-Encoding", "gzip"))
    target, sums = "/v2/models/demo/infer", _said([12.0, 1.0], "outputs", "0", "data")
    return [
        Right("oip json", _post(target, plain), sums),
        Right("oip raw", _post(target, raw, OCTETS, ((JSON_SIZE, str(size)),)), sums),
        Right("oip raw both ways", _post(target, asks_raw, "", ((JSON_SIZE, str(size + 41)),)), _raw([12.0, 1.0])),
        Right("oip bare", _post(target, tensors[0].array.tobytes(), "", ((JSON_SIZE, "0"),)), _raw([12.0, 1.0])),
        Right("oip gzip", _post(target, gzip.compress(raw, mtime=0), "", packed), sums),
        Right("oip deflate", _post(target, zlib.compress(plain), "", (("Content-Encoding", "deflate"),)), sums),
        Right("oip texts", _post("/v2/models/texts/infer", texts, "", ((JSON_SIZE, str(texts_size)),)), _answered),
        Right(
            "oip mixed",
            _post("/v2/models/mixed/infer", mixed, "", ((JSON_SIZE, str(mixed_size)),)),
            _said([7, -1], "outputs", "1", "data"),
        ),
        Right("oip model", Request("GET", "/v2/models/demo"), _said("demo", "name")),
        Right("oip index", _post("/v2/repository/index", b"{}"), _said("demo", "0", "name")),
    ]


def _wallaroo() -> list[Right]:
    text = json.dumps(ROWS).encode()
    fixed = pa.schema([("x", pa.list_(pa.float32(), 3))])
    free = pa.schema([("x", pa.list_(pa.float32()))])
    kinds = pa.schema([("m", pa.list_(pa.list_(pa.float32(), 2), 2)), ("n", pa.int64()), ("t", pa.string())])
    named = kinds.set(2, pa.field("t", pa.dictionary(pa.int8(), pa.string())))
    small = pa.ipc.IpcWriteOptions(compression="zstd")
    demo, quick, mixed, sums = "/pipelines/demo", "/pipelines/quick", "/pipelines/mixed", _numbers("y", SUMS)
    asks_arrow: Headers = (("Accept", ARROW),)
    sdk = "/v1/api/pipelines/infer/demo-1/demo?dataset%5B%5D=%2A&dataset.exclude%5B%5D=metadata&dataset.separator=."
    return [
        Right("records", _post(demo, text, JSON), sums),
        Right("records quick", _post(quick, text, JSON), sums),
        Right("records mixed", _post(mixed, json.dumps(MIXED).encode(), JSON), _numbers("c", ["a", "é"])),
        Right("records lookup", _post("/pipelines/lookup", b'[{"x":1}]', JSON), _numbers("y", [20.0])),
        Right("records gzip", _post(demo, gzip.compress(text), JSON, (("Content-Encoding", "gzip"),)), sums),
        Right("custom json", _post(demo, text, CUSTOM), _said([[12.0], [1.0]])),
        Right("custom value", _post("/pipelines/value", b'{"a": [1, {"b": null}]}', CUSTOM), _answered),
        Right("arrow file", _post(quick, arrow(ROWS, fixed), ARROW), sums),
        Right("arrow file of free lists", _post(quick, arrow(ROWS, free), ARROW), sums),
        Right("arrow stream", _post(quick, arrow(ROWS, fixed, pa.ipc.new_stream), STREAM), sums),
        Right("arrow both ways", _post(quick, arrow(ROWS, free), ARROW, asks_arrow), _arrow_rows(SUMS)),
        Right("arrow one row", _post(quick, arrow(ROWS[:1], fixed), ARROW, asks_arrow), _arrow_rows(SUMS[:1])),
        Right("arrow one free row", _post(quick, arrow(ROWS[1:], free), ARROW, asks_arrow), _arrow_rows(SUMS[1:])),
        Right("arrow mixed", _post(mixed, arrow(MIXED, kinds), ARROW), _numbers("b", [7, -1])),
        Right("arrow dictionary", _post(mixed, arrow(MIXED, named, pa.ipc.new_stream), STREAM), _numbers("b", [7, -1])),
        Right("arrow packed", _post(mixed, arrow(MIXED, kinds, options=small), ARROW), _numbers("c", ["a", "é"])),
        Right("sdk", _post(sdk, text, JSON), _said([12.0], "0", "out.y")),
        Right("logs", _post("/logs?pipeline=demo&limit=3&dataset[]=out&dataset[]=metadata.seq", b""), _answered),
        Right("pipelines", Request("GET", "/pipelines"), _said("Running", "pipelines", "0", "status")),
    ]


def right_requests() -> list[Right]:
    """One for each door and format."""
    instances, columns = {"instances": [[1, 2, 3], [0.5, 0, 0]]}, {"x": [[1, 2, 3], [0.5, 0, 0]]}
    return [
        *_wallaroo(),
        *_oip(),
        Right(
            "kserve", _post("/v1/models/demo:predict", json.dumps(instances).encode(), JSON), _said(SUMS, "predictions")
        ),
        Right(
            "predict", _post("/predict?model=demo", json.dumps(columns).encode(), JSON), _said(SUMS, "prediction", "y")
        ),
        Right("predict value", _post("/predict?model=value", b"[1, 2.5, null]", JSON), _answered),
        Right("health", Request("GET", "/healthz"), _said("alive", "status")),
    ]
