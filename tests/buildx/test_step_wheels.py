"""Bundles whose steps bring wheels of their own: what an image carries of them, and on which base it stands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arch.target import Target
from arch.traits import traits_of
from buildx.choice import check_python, index_for
from buildx.layers import _foreign
from bundle.bundle import bundles, pack
from bundle.pipeline import PipelineSpec, StepSpec, WorkerSpec, wheel_path
from edgepack.errors import BadInput
from oci.image import Index
from tests.buildx.parts import make_bundle, make_wheel

X86, ARM = Target("x86"), Target("arm")


def index_with_wheels(folder: Path) -> Index:
    """A bundle of one python step for two targets, each with a wheel of its own."""
    code = folder / "step.py"
    code.write_text("x = 1\n")
    step = StepSpec(
        name="prepare",
        model="models/prepare",
        framework="python",
        runtime="python",
        input={"x": "float32"},
        output={"y": "float32"},
        worker=WorkerSpec("step", "3.11"),
    )
    wheels = {}
    for target, tag in ((X86, "x86_64"), (ARM, "aarch64")):
        wheel = make_wheel(folder, "native", "1.0", {"native.py": tag.encode()}, f"cp311-cp311-manylinux_2_28_{tag}")
        wheels[target] = {wheel_path("prepare", wheel.name): wheel}
    return pack(PipelineSpec("p", [step]), {"models/prepare/step.py": code}, b"[]\n", [X86, ARM], wheels)


def test_an_image_carries_only_its_own_targets_wheels(tmp_path: Path) -> None:
    index = index_with_wheels(tmp_path)
    arm, x86 = (set(str(blob.descriptor.digest) for blob in image.blobs()) for image in index.images)
    assert index_for(index, ARM) is index  # the manifests stay, so that version and digest are those of the bundle
    assert _foreign(index, ARM) == sorted(x86 - arm) != []


def test_a_bundle_without_wheels_is_carried_for_all_plain_targets(tmp_path: Path) -> None:
    index = make_bundle(tmp_path)
    assert {X86, ARM} <= {each.target for each in bundles(index_for(index, ARM))}


def test_a_base_with_another_python_than_the_wheels_is_refused(tmp_path: Path) -> None:
    bundle = bundles(index_with_wheels(tmp_path))[1]
    check_python(bundle, traits_of(X86))
    with pytest.raises(BadInput, match=r"wheels for Python 3\.11, the base has 3\.12: choose a base with"):
        check_python(bundle, replace(traits_of(X86), python="3.12"))
