"""Pipelines of several steps and several models: split by weight and key, shadows, what is logged of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest
import requests

from bundle.pipeline import LogPolicy, PipelineSpec, RoutingSpec
from columns import Columns, Schema
from edge_agent.inference_log.spool import Spool
from edge_agent.pipelines.active_pipeline import ActivePipeline
from edgepack.errors import BadInput, NotTrusted
from runtimes.pipeline import LoadedPipeline
from tests.edge_agent.served import VERSION, Front, Served
from tests.runtimes.models import bundle_folder, graph, helper, linear, lookup, step

TAKES, GIVES = {"x": "list<float32>[3]"}, {"y": "list<float32>[1]"}


@pytest.fixture
def served(tmp_path):
    with Served(tmp_path, Front()) as served:
        yield served


def add(served, models, steps, **spec):
    """Serve a pipeline `demo` of any steps."""
    folder = bundle_folder(served.root / "demo", models, steps, b'[{"in.x": [1, 2, 3]}]', **spec)
    served.spools["demo"] = spool = Spool(served.root / "spool" / "demo", LogPolicy(), "line-4")
    loaded = LoadedPipeline.open(folder)
    served.serving.switch("demo", ActivePipeline("demo", VERSION, f"sha256:{folder.name}", loaded, spool, "line-4"))
    return loaded


def tripled() -> bytes:
    weights = {"w": np.full((1, 1), 3, dtype=np.float32)}
    sides = {"y": ("float32", ["n", 1])}, {"z": ("float32", ["n", 1])}
    return graph([helper.make_node("MatMul", ["y", "w"], ["z"])], *sides, weights)


def add_steps(served):
    """Two steps: six times the sum of x."""
    steps = [
        step("first", output={"y": "list<float32>[1]"}),
        step("second", input={"y": "list<float32>[1]"}, output={"z": "list<float32>[1]"}),
    ]
    return add(served, {"first.onnx": linear(factor=2.0), "second.onnx": tripled()}, steps)


def routed(routing_models, split=None, shadow=(), key=None, **changes):
    models = {name: step(name) for name in routing_models}
    routing = RoutingSpec(models, split or {}, key, list(shadow))
    first = next(iter(split)) if split else "main"
    return step("ab", model=f"{first}.onnx", routing=routing, **changes)


def files(*factors):
    return {f"{name}.onnx": linear(factor=factor) for name, factor in factors}


def answered(served, rows):
    found = served.post(rows=rows)
    assert found.status_code == 200, found.text
    return found.json()


def test_steps_run_in_sequence_and_each_has_its_time(served):
    add_steps(served)
    (row,) = answered(served, [{"x": [1, 2, 3]}])
    assert row["out"] == {"z": [36.0]}
    assert len(row["metadata"]["elapsed"]) == 3


def test_rows_are_split_by_weight_and_say_which_model_answered(served):
    add(served, files(("champion", 1), ("challenger", 2)), [routed(["champion", "challenger"], {
        "champion": 9, "challenger": 1})])  # fmt: skip
    rows = answered(served, [{"x": [1, 0, 0]}] * 2000)
    models = Counter(json.loads(row["metadata"]["last_model"])["model_name"] for row in rows)
    assert 100 < models["challenger"] < 320
    for row in rows:
        expected = {"champion": 1.0, "challenger": 2.0}[json.loads(row["metadata"]["last_model"])["model_name"]]
        assert row["out"]["y"] == [expected]
    logged = served.post("/logs").json()
    assert [row["out"] for row in logged] == [row["out"] for row in rows]


def test_one_row_requests_are_split_as_well(served):
    add(served, files(("a", 1), ("b", 2)), [routed(["a", "b"], {"a": 1, "b": 1})])
    answers = {answered(served, [{"x": [1, 0, 0]}])[0]["out"]["y"][0] for _ in range(40)}
    assert answers == {1.0, 2.0}


def test_the_same_key_always_meets_the_same_model(served):
    takes = {**TAKES, "line": "string"}
    add(served, files(("a", 1), ("b", 2)), [routed(["a", "b"], {"a": 1, "b": 1}, key="in.line", input=takes)])
    rows = [{"x": [1, 0, 0], "line": f"line-{number % 50}"} for number in range(500)]
    seen: dict[str, set[float]] = {}
    for _ in range(2):
        for row in answered(served, rows):
            seen.setdefault(row["in"]["line"], set()).add(row["out"]["y"][0])
    assert all(len(each) == 1 for each in seen.values())
    assert {value for each in seen.values() for value in each} == {1.0, 2.0}
    one = answered(served, [{"x": [1, 0, 0], "line": "line-7"}])[0]["out"]["y"][0]
    assert {one} == seen["line-7"]


def test_a_number_as_a_key_and_a_key_the_models_take_are_sticky_too(tmp_path):
    folder = bundle_folder(tmp_path, files(("a", 1), ("b", 2)), [routed(["a", "b"], {"a": 1, "b": 1}, key="in.x")])
    loaded = LoadedPipeline.open(folder)
    values = np.random.default_rng(3).normal(size=(300, 3)).astype(np.float32)
    columns = Columns.of(Schema.parse(TAKES), {"x": values})
    first, second = loaded.infer(columns), loaded.infer(columns)
    assert np.array_equal(first.models, second.models)
    assert set(first.models.tolist()) == {0, 1}
    reverse = loaded.infer(Columns.of(Schema.parse(TAKES), {"x": values[::-1]}))
    assert np.array_equal(reverse.models[::-1], first.models)
    loaded.close()


def test_shadow_answers_are_logged_and_never_answered(served):
    add(served, files(("main", 1), ("next", 2)), [routed(["next"], shadow=["next"])])
    (row,) = answered(served, [{"x": [1, 2, 3]}])
    assert row["out"] == {"y": [6.0]}
    assert "out_next" not in row
    (logged,) = served.post("/logs").json()
    assert logged["out_next"] == {"y": [12.0]}
    assert logged["metadata"]["dropped"] == []


def test_the_log_is_asked_for_shadow_columns_that_some_rows_lack(served):
    loaded = add(served, files(("main", 1), ("next", 2)), [routed(["next"], shadow=["next"])])
    whole = loaded.shadows
    loaded.shadows = lambda outcome: {}
    answered(served, [{"x": [1, 2, 3]}])
    assert len(served.post("/logs").json()) == 1
    loaded.shadows = whole
    answered(served, [{"x": [1, 2, 3]}])
    assert served.post("/logs?dataset[]=out_next&dataset[]=metadata.dropped").json() == [
        {"metadata": {"dropped": ["out_next"]}},
        {"metadata": {"dropped": []}, "out_next": {"y": [12.0]}},
    ]
    refusal = served.post("/logs?dataset[]=out_other")
    assert refusal.status_code == 400
    assert "'out_other'" in refusal.json()["error"]


def test_the_dataset_parameters_answer_on_split_and_shadow_steps_too(served):
    add(served, files(("a", 1), ("b", 2), ("c", 3)), [routed(["a", "b", "c"], {"a": 1, "b": 1}, ["c"])])
    for query, groups in (("dataset[]=*&dataset[]=metadata.elapsed", {"time", "in", "out", "anomaly", "metadata"}),
                          ("dataset[]=metadata.elapsed", {"metadata"})):  # fmt: skip
        answer = served.post(f"/infer?{query}", [{"x": [1, 2, 3]}])
        assert answer.status_code == 200
        assert set(answer.json()[0]) == groups


def test_a_shadow_that_fails_is_named_in_the_log_and_changes_no_answer(served):
    takes, gives = {"x": "int64"}, {"y": "float32"}
    models = {name: step(name, input=takes, output=gives) for name in ("small",)}
    weights = np.arange(10, dtype=np.float32) * 10
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    large = graph(nodes, {"x": ("int64", ["n"])}, {"y": ("float32", ["n"])}, {"table": weights})
    main = step("main", input=takes, output=gives, routing=RoutingSpec(models, shadow=["small"]))
    add(served, {"main.onnx": large, "small.onnx": lookup()}, [main])
    (row,) = answered(served, [{"x": 7}])
    assert row["out"] == {"y": 70.0}
    (logged,) = served.post("/logs").json()
    assert "out_small" not in logged
    assert logged["metadata"]["dropped"] == ["out_small"]


def test_shadows_are_asked_after_the_answer_and_not_after_the_pipeline_was_closed(tmp_path):
    folder = bundle_folder(tmp_path, files(("main", 1), ("next", 2)), [routed(["next"], shadow=["next"])])
    loaded = LoadedPipeline.open(folder)
    columns = Columns.of(Schema.parse(TAKES), {"x": np.ones((2, 3), np.float32)})
    outcome = loaded.infer(columns)
    assert outcome.outputs["y"].tolist() == [[3.0], [3.0]]
    assert loaded.shadows(outcome)["next"]["y"].tolist() == [[6.0], [6.0]]
    loaded.close()
    assert loaded.shadows(outcome) == {}


def test_golden_rows_are_answered_by_the_first_model_after_all_others_ran(tmp_path):
    folder = bundle_folder(tmp_path, files(("a", 1), ("b", 2)), [routed(["a", "b"], {"a": 1, "b": 5})])
    loaded = LoadedPipeline.open(folder)
    columns = Columns.of(Schema.parse(TAKES), {"x": np.ones((50, 3), np.float32)})
    assert set(loaded.rehearse(columns)["y"].reshape(-1).tolist()) == {3.0}
    loaded.close()


def test_every_model_of_a_routed_step_is_listed(served):
    add(served, files(("a", 1), ("b", 2), ("c", 3)), [routed(["a", "b", "c"], {"a": 1, "b": 1}, ["c"])])
    assert [each["name"] for each in served.get("/models").json()["models"]] == ["a", "b", "c"]
    metrics = served.get("/metrics").text
    assert all(f'edgepack_provider{{pipeline="demo",step="{name}",provider="' in metrics for name in "abc")


@pytest.mark.parametrize(
    ("routing", "said"),
    [
        (RoutingSpec({"a": step("a")}, {"b": 1}), "other models than it has"),
        (RoutingSpec({"a": step("a")}, {"a": 1}, None, ["a"]), "or one twice"),
        (RoutingSpec({"a": step("a")}, {"a": 0}), "weight"),
        (RoutingSpec({"a": step("a", output={"z": "float32"})}, {"a": 1}), "does not give"),
        (RoutingSpec({"a": step("a", input={"z": "float32"})}, {"a": 1}), "does not take"),
        (RoutingSpec({"../a": step("../a")}, {"../a": 1}), "DNS label"),
    ],
)
def test_a_spec_whose_routing_does_not_hold_together_is_refused(routing, said):
    spec = PipelineSpec("demo", [step(routing=routing)])
    with pytest.raises(BadInput, match=said):
        PipelineSpec.decode(spec.encode())


def test_a_bundle_whose_challenger_is_another_file_than_its_spec_says_is_not_trusted(tmp_path):
    models = {name: step(name, sha256="0" * 64 if name == "b" else "") for name in ("a", "b")}
    spec = step("ab", model="a.onnx", routing=RoutingSpec(models, {"a": 1, "b": 1}))
    with pytest.raises(NotTrusted, match=r"step 'b' names model 'b\.onnx' with sha256"):
        bundle_folder(tmp_path, files(("a", 1), ("b", 2)), [spec])


def test_requests_that_wait_have_shadows_left_out_and_are_all_answered(tmp_path):
    with Served(tmp_path, Front(threads=1)) as served:
        loaded = add(served, files(("main", 1), ("next", 2)), [routed(["next"], shadow=["next"])])
        whole, begun, go_on = loaded.infer, Event(), Event()

        def slow(inputs):
            begun.set()
            assert go_on.wait(60)
            return whole(inputs)

        loaded.infer = slow
        with ThreadPoolExecutor(3) as threads:
            first = threads.submit(requests.post, served.url + "/infer", json=[{"x": [1, 0, 0]}], timeout=60)
            assert begun.wait(60)
            rest = [
                threads.submit(requests.post, served.url + "/infer", json=[{"x": [n, 0, 0]}], timeout=60)
                for n in (2, 3)
            ]
            end = time.monotonic() + 60
            while "edgepack_queue 2" not in served.get("/metrics").text:
                assert time.monotonic() < end
            go_on.set()
            assert [each.result().status_code for each in (first, *rest)] == [200, 200, 200]
        dropped = {row["in"]["x"][0]: row["metadata"]["dropped"] for row in served.post("/logs").json()}
        assert sorted(map(len, dropped.values())) == [0, 0, 1]  # the last one had nobody behind it
        assert dropped[1.0] == []
