"""Which providers are used, and why another is not."""

from __future__ import annotations

import pytest

from arch.nvidia import Nvidia
from arch.providers import (
    CPU,
    CUDA,
    OPENVINO,
    TENSORRT,
    Choice,
    Needs,
    choose_providers,
    objection,
    wanted_providers,
)

CARD = Nvidia(("nvidia0",), "580.95.05", "13.0", None)
JETSON = Nvidia(("nvhost-gpu",), None, "12.6", "36.4.3")


def test_the_environment_says_what_is_wanted_and_nothing_means_the_cpu():
    assert wanted_providers("A, B,CPUExecutionProvider") == ("A", "B", CPU)
    assert wanted_providers(None) == wanted_providers("") == (CPU,)


def test_the_order_is_kept_and_the_cpu_is_last_also_when_nobody_asked_for_it():
    choice = choose_providers([CPU, TENSORRT, CUDA], [CUDA, TENSORRT, CPU], lambda name: None)
    assert choice == Choice((TENSORRT, CUDA, CPU), {})
    assert choose_providers([CUDA], [CUDA, CPU], lambda name: None).used == (CUDA, CPU)


def test_what_the_engine_lacks_or_the_machine_forbids_is_skipped_with_the_reason():
    choice = choose_providers(["X", CUDA, CPU], [CUDA, CPU], lambda name: "no device" if name == CUDA else None)
    assert choice == Choice((CPU,), {"X": "this onnxruntime was built without it", CUDA: "no device"})


def test_what_the_engine_refuses_afterwards_is_taken_back():
    assert Choice((CUDA, CPU)).without({CUDA: "why"}) == Choice((CPU,), {CUDA: "why"})


@pytest.mark.parametrize(
    ("name", "nvidia", "needs", "reason"),
    [
        (CUDA, None, Needs(), "no NVIDIA device is here"),
        (CUDA, Nvidia((), "580.1", "13.0", None), Needs(), "no NVIDIA device is here"),
        (CUDA, Nvidia(("nvidia0",), "580.1", None, None), Needs(), "libcuda.so.1 is not here"),
        (
            CUDA,
            Nvidia(("nvidia0",), "550.1", "12.4", None),
            Needs("13.0"),
            "speaks CUDA 12.4, this onnxruntime needs 13.0",
        ),
        (CUDA, CARD, Needs("13.2"), None),
        (CUDA, CARD, Needs("13.0", "36.4"), "does not say that it is a Jetson"),
        (CUDA, JETSON, Needs("12.6", "36.4"), None),
        (CUDA, JETSON, Needs("12.6", "36.3"), "do not mix"),
        (TENSORRT, CARD, Needs(), "libnvinfer"),
        ("OpenVINOExecutionProvider", None, Needs(), None),
        (CPU, None, Needs(), None),
    ],
)
def test_what_speaks_against_a_provider(name, nvidia, needs, reason):
    found = objection(name, nvidia, needs, can_load=lambda library: False)
    assert found is None if reason is None else reason in str(found)


def test_tensorrt_is_used_where_its_library_loads():
    assert objection(TENSORRT, CARD, Needs(), can_load=lambda library: library == "libnvinfer.so.10") is None


NODES = {OPENVINO: {"MatMul": 2, "Add": 3}, CPU: {"Scaler": 1, "Normalizer": 1}}


def test_a_provider_without_a_node_of_the_model_is_taken_back_and_the_cpu_never_is():
    assert Choice((CUDA, OPENVINO, CPU)).placed(NODES) == Choice(
        (OPENVINO, CPU), {CUDA: "it takes none of this model's nodes (Add 3, MatMul 2, Normalizer 1, Scaler 1)"}, NODES
    )
    whole = {OPENVINO: {"MatMul": 1}}
    assert Choice((OPENVINO, CPU)).placed(whole).used == (OPENVINO, CPU)


def test_an_engine_that_does_not_say_where_nodes_went_changes_nothing():
    assert Choice((CUDA, CPU)).placed({}) == Choice((CUDA, CPU))


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        (Choice(), "CPUExecutionProvider"),
        (Choice(threads=1, engine="LiteRT 2.3.0"), "CPUExecutionProvider, 1 thread, LiteRT 2.3.0"),
        (Choice((OPENVINO, CPU), nodes={OPENVINO: {"Add": 1}}, threads=2), "OpenVINOExecutionProvider, 2 threads"),
        (
            Choice((OPENVINO, CPU), nodes=NODES),
            "OpenVINOExecutionProvider (5 of 7 nodes, others: Normalizer 1, Scaler 1)",
        ),
        (
            Choice((OPENVINO, CPU), nodes={OPENVINO: {"Add": 1}, CPU: {f"K{n}": 1 for n in range(9)}}),
            "OpenVINOExecutionProvider (1 of 10 nodes, others: K0 1, K1 1, K2 1, K3 1, K4 1, …)",
        ),
    ],
)
def test_a_choice_is_told_in_a_line(choice, said):
    assert str(choice) == said


@pytest.mark.parametrize(
    ("asked", "found", "reason"),
    [
        ("", ("CPU",), None),
        ("AUTO", ("CPU",), None),
        ("CPU", ("CPU",), None),
        ("GPU", ("CPU", "GPU.0"), None),
        ("GPU.0", ("CPU", "GPU"), None),
        ("AUTO:GPU,CPU", ("CPU", "GPU"), None),
        ("AUTO:GPU,CPU", ("CPU",), "OpenVINO finds no GPU here, only CPU"),
        ("GPU", None, None),
        ("GPU.2", ("CPU", "GPU.0", "GPU.2"), None),
        ("GPU.1", ("CPU", "GPU.0", "GPU.2"), "OpenVINO finds no GPU.1 here, only CPU, GPU.0, GPU.2: is"),
        ("AUTO:GPU,-CPU", ("CPU", "GPU"), None),
        ("AUTO:-CPU", ("CPU", "GPU"), None),
        ("MULTI:GPU(2),CPU(1)", ("CPU", "GPU.0"), None),
        ("MULTI:GPU(2),CPU(1)", ("CPU",), "OpenVINO finds no GPU here, only CPU"),
        ("BATCH:GPU.1(4)", ("CPU", "GPU.0"), "OpenVINO finds no GPU.1 here"),
        ("GPU", ("CPU",), "OpenVINO finds no GPU here, only CPU: is the container given the device"),
        ("AUTO:GPU,NPU", ("CPU",), "OpenVINO finds no GPU and no NPU here, only CPU"),
        ("GPU", (), "OpenVINO finds no device here: its libraries are not whole"),
    ],
)
def test_openvino_is_not_asked_for_a_device_that_it_does_not_find(asked, found, reason):
    said = objection(OPENVINO, None, Needs(openvino=asked, found=found))
    assert said is None if reason is None else reason in str(said)
