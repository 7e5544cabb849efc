"""Any ONNX model with plain tensors: from its file through the packager to the Open Inference Protocol and the log."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from onnx import helper

from arch.target import host_target
from bundle.bundle import bundles
from bundle.pipeline import LogPolicy
from bundle.store import unpack
from columns.oip import encode_request
from columns.oip_tensors import Tensor, from_raw
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edgepack.errors import BadInput
from packager import Project, package
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import VERSION, Front, Served
from tests.edge_agent.test_oip import ELEMENTS, RAW, kind, model

SHAPES = {
    "rows": (["n"], [(3,), (0,)]),
    "scalar": ([], [()]),
    "free": (["a", "b", "c"], [(2, 3, 4), (0, 3, 2), (2, 0, 4)]),
    "fixed": ([2, 3], [(2, 3)]),
    "one": ([1, 3], [(1, 3)]),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with Served(tmp_path_factory.mktemp("any"), Front()) as served:
        yield served


def add(served, data):
    """Package a bare model file and serve it as `it`."""
    work = served.root / str(len(served.spools))
    work.mkdir()
    (work / "it.onnx").write_bytes(data)
    packaged = package(Project.open(work / "it.onnx"), [host_target()], cache=work / "cache")
    loaded = LoadedPipeline.open(unpack(bundles(packaged.index)[0], work / "bundles"))
    served.spools[work.name] = spool = Spool(work / "spool", LogPolicy(durability="relaxed"), "here", pipeline="it")
    served.serving.switch("it", ActivePipeline("it", VERSION, "sha256:0", loaded, spool, "here"))


def values(datatype, shape):
    count = math.prod(shape)
    if datatype == "BYTES":
        return np.array([f"text {number} é" for number in range(count)], object).reshape(shape)
    return (np.arange(count) % 2).astype("float32" if datatype == "BF16" else kind(datatype)).reshape(shape)


def ask(served, tensors, *, raw):
    body, size = encode_request(tensors, raw=raw)
    if not raw:
        return served.post("/v2/models/it/infer", data=body).json()["outputs"]
    head = json.dumps({**json.loads(body[:size]), "parameters": {"binary_data_output": True}}).encode()
    answer = served.post("/v2/models/it/infer", data=head + body[size:], headers={RAW: str(len(head))})
    length = int(answer.headers[RAW])
    outputs, rest = json.loads(answer.content[:length])["outputs"], memoryview(answer.content)[length:]
    for output in outputs:
        size = output.pop("parameters")["binary_data_size"]
        array = from_raw(output["name"], output["datatype"], output["shape"], rest[:size]).array
        flat = array.reshape(-1).tolist()
        output["data"] = [each.decode() for each in flat] if output["datatype"] == "BYTES" else flat
        rest = rest[size:]
    assert not len(rest)
    return outputs


def identities(datatypes, shape):
    """A model that gives back what it gets, a tensor each datatype."""
    nodes = [helper.make_node("Identity", [f"in_{each}"], [f"out_{each}"]) for each in datatypes]
    sides = ({f"{side}_{each}": (each, shape) for each in datatypes} for side in ("in", "out"))
    return model(nodes, *sides)


@pytest.mark.parametrize("form", SHAPES)
@pytest.mark.parametrize("datatypes", [sorted(ELEMENTS.keys() - {"BYTES"}), ["BYTES"]], ids=["numbers", "text"])
def test_a_bare_file_is_packaged_and_gives_back_what_it_gets(served, datatypes, form):
    shape, asked = SHAPES[form]
    add(served, identities(datatypes, shape))
    for given in asked:
        sent = {datatype: values(datatype, given) for datatype in datatypes}
        tensors = [Tensor(f"in_{datatype}", datatype, array) for datatype, array in sent.items()]
        for raw in (True, False):
            outputs = {each["datatype"]: (each["shape"], each["data"]) for each in ask(served, tensors, raw=raw)}
            assert outputs == {each: (list(given), array.reshape(-1).tolist()) for each, array in sent.items()}
    logged = served.post("/logs").json()
    assert len(logged) == 2 * len(asked)
    assert set(map(tuple, json.loads(logged[-1]["metadata"]["shapes"]).values())) == {given}


def test_several_tensors_of_several_types_and_ranks_go_through_one_model(served):
    nodes = [
        helper.make_node("Mul", ["matrix", "factor"], ["scaled"]),
        helper.make_node("Gather", ["words", "index"], ["word"]),
        helper.make_node("Shape", ["matrix"], ["size"]),
    ]
    takes = {"matrix": ("FP32", ["r", "c"]), "factor": ("FP32", []), "words": ("BYTES", ["w"]), "index": ("INT64", [])}
    gives = {"scaled": ("FP32", ["r", "c"]), "word": ("BYTES", []), "size": ("INT64", [2])}
    add(served, model(nodes, takes, gives))
    tensors = [
        Tensor("matrix", "FP32", np.array([[1, 2, 3], [4, 5, 6]], np.float32)),
        Tensor("factor", "FP32", np.array(2, np.float32)),
        Tensor("words", "BYTES", np.array(["a", "b"], object)),
        Tensor("index", "INT64", np.array(1)),
    ]
    for raw in (True, False):
        outputs = {each["name"]: (each["shape"], each["data"]) for each in ask(served, tensors, raw=raw)}
        assert outputs == {"scaled": ([2, 3], [2, 4, 6, 8, 10, 12]), "word": ([], ["b"]), "size": ([2], [2, 3])}


def test_bfloat16_goes_beside_other_numbers_and_scalars_stay_scalars(served):
    nodes = [helper.make_node("Cast", ["half"], ["whole"], to=ELEMENTS["FP32"]),
             helper.make_node("Add", ["whole", "other"], ["sum"])]  # fmt: skip
    add(served, model(nodes, {"half": ("BF16", []), "other": ("FP32", [])}, {"sum": ("FP32", [])}))
    tensors = [Tensor("half", "BF16", np.array(1.5, np.float32)), Tensor("other", "FP32", np.array(2, np.float32))]
    for raw in (True, False):
        (output,) = ask(served, tensors, raw=raw)
        assert (output["shape"], output["data"]) == ([], [3.5])


def test_text_beside_bfloat16_is_refused_when_it_is_packaged_with_the_reason(served):
    nodes = [helper.make_node("Identity", ["half"], ["y"]), helper.make_node("Identity", ["word"], ["z"])]
    sides = {"half": ("BF16", []), "word": ("BYTES", [])}, {"y": ("BF16", []), "z": ("BYTES", [])}
    with pytest.raises(BadInput, match="onnxruntime takes no text beside bfloat16 inputs"):
        add(served, model(nodes, *sides))
