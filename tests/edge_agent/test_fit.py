"""What does not fit a machine is said before its files are pulled; what merely runs slowly fits."""

from __future__ import annotations

import msgspec
import pytest

from arch.facts import Facts
from arch.nvidia import Nvidia
from bundle.pipeline import PipelineSpec, Resources, StepSpec
from edge_agent.fit import objections

FIELD = {"x": "list<float32>[2]"}
STEP = StepSpec(name="m", model="m.onnx", framework="onnx", runtime="onnx", input=FIELD, output=FIELD)
SPEC = PipelineSpec(name="m", steps=[STEP])
SMALL = Facts("aarch64", "a board", (), 2, 512 << 20, "6", "2.36", "3.11", None)
CARD = Nvidia(("nvidia0",), "580", "13.0", None)


def asking(**resources):
    return msgspec.structs.replace(SPEC, resources=Resources(**resources))


def test_a_small_model_fits_a_small_board_although_the_default_asks_for_more():
    assert Resources().memory == "1Gi"
    assert objections(SPEC, 1 << 20, SMALL) == []
    assert objections(asking(cpus=64), 1 << 20, SMALL) == []


@pytest.mark.parametrize(
    ("spec", "size_bytes", "reason"),
    [
        (SPEC, 513 << 20, "its files take 537919488 bytes, this device has 536870912 of memory"),
        (asking(memory="2Gi"), 1, r"[resources] memory is 2Gi, this device has 536870912 bytes"),
        (asking(gpus=1), 1, "[resources] gpus is 1, and no NVIDIA device is here"),
    ],
)
def test_what_cannot_run_is_refused_with_the_figure(spec, size_bytes, reason):
    (found,) = objections(spec, size_bytes, SMALL)
    assert reason in found


def test_all_reasons_are_said_together():
    assert len(objections(asking(memory="2Gi", gpus=1), 1 << 30, SMALL)) == 3


def test_a_device_fits_a_pipeline_that_asks_for_one():
    with_card = Facts("x86_64", "", (), 2, None, "6", "2.36", "3.11", CARD)
    assert objections(asking(memory="64Gi", gpus=1), 1 << 40, with_card) == []
