"""Which providers are used, and why another is not."""

from __future__ import annotations

import pytest

from arch.nvidia import Nvidia
from arch.providers import CPU, CUDA, TENSORRT, Choice, Needs, choose_providers, objection, wanted_providers

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
