"""Sessions on what is here. The engine is the real one; where it must have an accelerator, a stand-in says it has."""

from __future__ import annotations

import json
from types import SimpleNamespace

import onnxruntime
import pytest

from arch.providers import CPU, CUDA, Choice
from bundle.pipeline import Resources
from edgepack.errors import BadInput
from runtimes.cpus import usable_cpus
from runtimes.onnx import OnnxRuntime
from runtimes.pipeline import LoadedPipeline
from runtimes.providers import choose_here, keeping_compiled, open_session
from tests.runtimes.models import bundle_folder, linear, step

WANTED = f"{CUDA},{CPU}"


class Session:
    def __init__(self, path, options, providers):
        print(
            "*************** EP Error ***************\nEP Error /onnxruntime/pybind_state.cc:1053 T make(const X&) "
            f"libcudnn.so.9 is not here\n when using {providers}\nFalling back to ['{CPU}'] and retrying.\n****"
        )
        self.asked = providers

    def get_providers(self):
        return [CPU]


class Engine:
    """An onnxruntime with CUDA in it, whose CUDA does not start."""

    InferenceSession = Session
    __version__ = "1.31.0"
    preloaded = 0

    def get_available_providers(self):
        return [CUDA, CPU]

    def preload_dlls(self):
        self.preloaded += 1


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(linear())
    return path


def test_without_a_wish_the_cpu_is_used_and_nothing_is_skipped(model):
    _, choice = open_session(onnxruntime, model, onnxruntime.SessionOptions(), choose_here(onnxruntime, {}))
    assert (choice.used, choice.skipped, choice.nodes) == ((CPU,), {}, {})
    assert choice.engine == f"onnxruntime {onnxruntime.__version__}"


def test_a_provider_that_this_engine_lacks_is_skipped_with_the_reason(model, monkeypatch):
    monkeypatch.setenv("EDGEPACK_PROVIDERS", WANTED)
    runtime = OnnxRuntime.load(model, step())
    assert runtime.providers.used == (CPU,)
    assert runtime.providers.skipped == {CUDA: "this onnxruntime was built without it"}
    runtime.close()


def test_a_machine_without_a_card_does_not_try_cuda():
    choice = choose_here(Engine(), {"EDGEPACK_PROVIDERS": WANTED})
    if CUDA in choice.used:
        pytest.skip("this machine has an NVIDIA card")
    assert "NVIDIA" in choice.skipped[CUDA] or "libcuda" in choice.skipped[CUDA]


def test_an_engine_that_falls_back_by_itself_is_found_out_with_what_it_said(model, capsys):
    engine = Engine()
    session, choice = open_session(engine, model, onnxruntime.SessionOptions(), Choice((CUDA, CPU)))
    assert session.asked == [(CUDA, {"use_tf32": "0"}), (CPU, {})]
    assert engine.preloaded == 1
    assert choice.used == (CPU,)
    assert choice.skipped[CUDA] == "onnxruntime did not take it: libcudnn.so.9 is not here"
    assert capsys.readouterr().out == ""


def test_a_pipeline_says_what_each_step_computes_on(tmp_path):
    pipeline = LoadedPipeline.open(bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()]))
    said = pipeline.providers["linear"]
    assert (said.used, said.skipped, said.threads) == ((CPU,), {}, usable_cpus())
    pipeline.close()


def test_a_model_computes_with_as_many_threads_as_its_pipeline_has_cpus(tmp_path):
    pipeline = LoadedPipeline.open(
        bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()], resources=Resources(cpus=1))
    )
    assert pipeline.providers["linear"].threads == 1
    pipeline.close()


class Part:
    """Nodes of a model that one provider has."""

    def __init__(self, provider, *kinds):
        self.ep_name, self._kinds = provider, kinds

    def get_nodes(self):
        return [SimpleNamespace(name=f"n{at}", op_type=kind) for at, kind in enumerate(self._kinds)]


class Placed(Engine):
    """An onnxruntime whose CUDA takes what it is said to."""

    def __init__(self, *parts):
        self.parts = parts

    def InferenceSession(self, path, options, providers):
        return SimpleNamespace(
            get_providers=lambda: [name for name, _ in providers],
            get_provider_graph_assignment_info=lambda: self.parts,
            recorded=options.get_session_config_entry("session.record_ep_graph_assignment_info"),
        )


def test_where_the_nodes_of_a_model_went_is_told(model):
    engine = Placed(Part(CUDA, "MatMul", "Add"), Part(CPU, "Scaler"), Part(CUDA, "Add"))
    session, choice = open_session(engine, model, onnxruntime.SessionOptions(), Choice((CUDA, CPU)))
    assert session.recorded == "1"
    assert choice.used == (CUDA, CPU)
    assert choice.nodes == {CUDA: {"MatMul": 1, "Add": 2}, CPU: {"Scaler": 1}}


def test_a_provider_that_takes_no_node_of_a_model_is_not_used_and_the_reason_names_them(model):
    engine = Placed(Part(CPU, "Scaler", "TreeEnsembleClassifier"))
    _, choice = open_session(engine, model, onnxruntime.SessionOptions(), Choice((CUDA, CPU)))
    assert choice.used == (CPU,)
    assert choice.skipped[CUDA] == "it takes none of this model's nodes (Scaler 1, TreeEnsembleClassifier 1)"


def test_what_is_compiled_is_kept_only_where_there_is_a_folder(model, monkeypatch, tmp_path):
    options = {"options": {CUDA: {"a": "1"}}, "cache": {CUDA: {"kept": "{cache}/x"}}}
    monkeypatch.setenv("EDGEPACK_PROVIDER_OPTIONS", json.dumps(options))
    session, _ = open_session(Engine(), model, onnxruntime.SessionOptions(), Choice((CUDA, CPU)))
    assert session.asked[0] == (CUDA, {"a": "1"})
    with keeping_compiled(tmp_path / "engines"):
        session, _ = open_session(Engine(), model, onnxruntime.SessionOptions(), Choice((CUDA, CPU)))
    assert session.asked[0] == (CUDA, {"a": "1", "kept": f"{tmp_path}/engines/x"})
    assert (tmp_path / "engines").is_dir()


def test_options_that_do_not_read_are_one_line(model, monkeypatch):
    monkeypatch.setenv("EDGEPACK_PROVIDER_OPTIONS", '{"options": {"X": 1}}')
    with pytest.raises(BadInput, match=r"^EDGEPACK_PROVIDER_OPTIONS does not read: [^\n]*expected tables as in"):
        open_session(Engine(), model, onnxruntime.SessionOptions(), Choice((CUDA, CPU)))
