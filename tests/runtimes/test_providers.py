"""Sessions on what is here. The engine is the real one; where it must have an accelerator, a stand-in says it has."""

from __future__ import annotations

import onnxruntime
import pytest

from arch.providers import CPU, CUDA, Choice
from runtimes.onnx import OnnxRuntime
from runtimes.pipeline import LoadedPipeline
from runtimes.providers import choose_here, open_session
from tests.runtimes.models import bundle_folder, linear, step

WANTED = f"{CUDA},{CPU}"


class Session:
    def __init__(self, path, options, providers):
        print("*************** EP Error ***************\nlibcudnn.so.9 is not here")
        self.asked = providers

    def get_providers(self):
        return [CPU]


class Engine:
    """An onnxruntime with CUDA in it, whose CUDA does not start."""

    InferenceSession = Session
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
    assert choice == Choice((CPU,), {})


def test_a_provider_that_this_engine_lacks_is_skipped_with_the_reason(model, monkeypatch):
    monkeypatch.setenv("EDGEPACK_PROVIDERS", WANTED)
    runtime = OnnxRuntime.load(model, step())
    assert runtime.providers == Choice((CPU,), {CUDA: "this onnxruntime was built without it"})
    runtime.close()


def test_a_machine_without_a_card_does_not_try_cuda():
    choice = choose_here(Engine(), {"EDGEPACK_PROVIDERS": WANTED})
    if CUDA in choice.used:
        pytest.skip("this machine has an NVIDIA card")
    assert "NVIDIA" in choice.skipped[CUDA] or "libcuda" in choice.skipped[CUDA]


def test_an_engine_that_falls_back_by_itself_is_found_out_with_what_it_said(model, capsys):
    engine = Engine()
    session, choice = open_session(engine, model, None, Choice((CUDA, CPU)))
    assert session.asked == [(CUDA, {"use_tf32": "0"}), CPU]
    assert engine.preloaded == 1
    assert choice.used == (CPU,)
    assert choice.skipped[CUDA] == "onnxruntime did not take it: EP Error libcudnn.so.9 is not here"
    assert capsys.readouterr().out == ""


def test_a_pipeline_says_what_each_step_computes_on(tmp_path):
    pipeline = LoadedPipeline.open(bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()]))
    assert pipeline.providers == {"linear": Choice((CPU,), {})}
    pipeline.close()
