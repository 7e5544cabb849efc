"""The environments of all steps of a pipeline: for each target, and for the trial here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from arch.catalog import Catalog
from arch.target import Target, host_target
from arch.traits import traits_of
from columns.schema import Schema
from edgepack.errors import BadInput
from packager import wheels
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.detect import detect
from packager.project import StepSource
from packager.step_environments import StepEnvironments, resolve_environments
from packager.wheels import StepWheels, WheelSource
from tests.buildx.parts import make_wheel
from tests.packager.test_wheels import NO_INDEX

X86, ARM = Target("x86"), Target("arm")


def step(name: str, *requirements: str) -> ModelArtifact:
    """A step that runs in a worker; without requirements one that does not."""
    schema = Schema.parse({"x": "float32"})
    return ModelArtifact(
        source=StepSource(name, Path("step.py")),
        framework="python" if requirements else "onnx",
        input=schema,
        output=schema,
        files={},
        model=f"models/{name}",
        digest="sha256:" + "0" * 64,
        summary="",
        kind="step" if requirements else None,
        requirements=requirements,
    )


JETSON = Target("arm", "jetson")


@pytest.fixture
def step_wheels(tmp_path: Path) -> StepWheels:
    return opened(tmp_path)


def opened(tmp_path: Path, catalog: Catalog | None = None) -> StepWheels:
    """Wheels of `pure` for all, and of `native` in other versions for x86 and arm, for Python 3.10 and 3.11."""
    local = tmp_path / "wheels"
    make_wheel(local, "pure", "1.2")
    for tag, version in (("x86_64", "3.1"), ("aarch64", "3.0")):
        for python in {"cp310", "cp311", f"cp3{sys.version_info.minor}"}:  # the targets', and that of the trial here
            make_wheel(local, "native", version, {"native.py": b""}, f"{python}-{python}-manylinux_2_28_{tag}")
    make_wheel(local, "intel", "1.0", {"intel.py": b""}, "py3-none-manylinux_2_28_x86_64")
    (tmp_path / "project").mkdir(exist_ok=True)
    return StepWheels(tmp_path / "project", tmp_path / "cache", WheelSource(local), NO_INDEX, catalog)


def resolved(step_wheels: StepWheels, *steps: ModelArtifact, here: bool = False) -> StepEnvironments:
    return resolve_environments(steps, [X86, ARM], step_wheels, Checklist(), here=here)


def pythons(found: Mapping[Target, list[ModelArtifact]]) -> dict[str, set[str]]:
    """The Pythons of a target's workers."""
    return {str(target): {each.worker.python for each in steps if each.worker} for target, steps in found.items()}


def test_each_target_gets_the_wheels_of_each_step(step_wheels: StepWheels) -> None:
    found = resolved(step_wheels, step("one", "native"), step("plain"), step("two", "pure==1.2"))
    assert found.targets == [ARM, X86]
    assert sorted(found.wheels[ARM]) == [
        "wheels/one/native-3.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "wheels/two/pure-1.2-py3-none-any.whl",
    ]
    assert len(found.wheels[X86]) == 2
    here = f"cp3{sys.version_info.minor}"
    assert sorted(found.trial_wheels) == sorted(name.replace("cp311", here) for name in found.wheels[host_target()])
    workers = [each.worker for each in found.steps(ARM)]
    assert workers[1] is None
    assert [worker.requirements for worker in workers if worker] == [("native==3.0",), ("pure==1.2",)]
    assert found.report["one"]["arm/none"] == {"python": "3.11", "wheels": {"native": "3.0"}, "changes": []}


def test_a_pipeline_without_workers_needs_nothing(step_wheels: StepWheels) -> None:
    found = resolved(step_wheels, step("plain"))
    assert (found.wheels, found.trial_wheels, found.report) == ({ARM: {}, X86: {}}, {}, {})
    assert found.targets == [ARM, X86]


def test_each_target_has_wheels_for_its_own_python(tmp_path: Path) -> None:
    """A target file may name another Python: JetPack 6 has 3.10."""
    own = tmp_path / "targets"
    own.mkdir()
    (own / "arm-none.toml").write_text('target = "arm/none"\npython = "3.10"\n')
    found = resolved(opened(tmp_path, Catalog.read([own])), step("one", "native"))
    assert list(found.wheels[ARM]) == ["wheels/one/native-3.0-cp310-cp310-manylinux_2_28_aarch64.whl"]
    assert list(found.wheels[X86]) == ["wheels/one/native-3.1-cp311-cp311-manylinux_2_28_x86_64.whl"]
    assert pythons({each: found.steps(each) for each in (ARM, X86)}) == {"arm/none": {"3.10"}, "x86/none": {"3.11"}}
    assert found.report["one"]["arm/none"]["python"] == "3.10"


def test_a_step_sees_nothing_of_the_base_so_nothing_is_left_out_of_its_wheels(tmp_path: Path) -> None:
    """The base of arm/aio brings numpy for the agent; jetson's leaves out what onnxruntime's tools need."""
    make_wheel(tmp_path / "wheels", "sympy", "1.0")
    source = opened(tmp_path)
    found = resolve_environments([step("one", "sympy", "native")], [JETSON], source, Checklist())
    assert {path.split("/")[-1].split("-")[0] for path in found.wheels[JETSON]} == {"sympy", "native"}
    frozen = StepWheels(tmp_path / "project", tmp_path / "cache", WheelSource(None, frozen=True), NO_INDEX)
    again = frozen.obtain("one", ["sympy", "native"], "exact", JETSON)
    assert again.python == "3.10" and len(again.wheels) == 2


def test_what_this_program_serves_is_for_its_own_interpreter(
    step_wheels: StepWheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(traits_of(host_target()), python="3.13")
    monkeypatch.setattr(wheels, "host_traits", lambda: other)
    found = [resolved(step_wheels, step("two", "pure==1.2"), here=here) for here in (True, False)]
    said = [each.worker.python for one in found for each in one.steps(host_target()) if each.worker]
    assert said == ["3.13", "3.11"]
    assert [each.worker.python for each in found[1].trial_steps if each.worker] == ["3.13"]


def test_a_requirement_without_a_wheel_is_a_failed_check(step_wheels: StepWheels) -> None:
    checklist = Checklist()
    with pytest.raises(BadInput, match=r"'native==3\.1', which has no wheel for Python 3\.11 on arm/none"):
        resolve_environments([step("one", "native==3.1")], [X86, ARM], step_wheels, checklist)
    assert [(check.key, check.passed) for check in checklist.checks] == [("model.wheels", False)]


def test_a_target_that_nobody_asked_for_is_left_out_where_there_is_no_wheel(step_wheels: StepWheels) -> None:
    found = resolve_environments([step("one", "intel")], [X86, ARM], step_wheels, Checklist(), asked=[X86])
    assert found.targets == [X86] and list(found.wheels) == [X86]
    assert found.notes[0].startswith("the bundle has nothing for arm/none: ") and "intel" in found.notes[0]
    with pytest.raises(BadInput, match="intel"):
        resolve_environments([step("one", "intel")], [X86, ARM], step_wheels, Checklist(), asked=[X86, ARM])


def test_a_target_that_the_lock_has_is_never_left_out(tmp_path: Path) -> None:
    """An index that is away for a moment must not give another bundle."""
    resolved(opened(tmp_path), step("one", "native"))
    (tmp_path / "wheels/native-3.0-cp311-cp311-manylinux_2_28_aarch64.whl").unlink()
    (tmp_path / "wheels/native-3.0-cp310-cp310-manylinux_2_28_aarch64.whl").unlink()
    emptied = StepWheels(tmp_path / "project", tmp_path / "other", WheelSource(tmp_path / "wheels"), NO_INDEX)
    with pytest.raises(BadInput, match="native"):
        resolve_environments([step("one", "native")], [X86, ARM], emptied, Checklist(), asked=[X86])


def test_wheels_for_an_accelerator_that_a_target_has_not_are_told_with_their_size(tmp_path: Path) -> None:
    """PyTorch's builds for ARM bring gigabytes of CUDA where the index alone is asked."""
    wheels_here = opened(tmp_path)
    make_wheel(tmp_path / "wheels", "nvidia-cublas", "13.1")
    found = resolved(wheels_here, step("net", "pure", "nvidia-cublas"))
    (note,) = {each.replace("arm/none", "x86/none") for each in found.notes}
    assert note.startswith("step 'net' on x86/none carries 1 wheels for NVIDIA's accelerators, which it has not: 0 MB")
    assert resolved(wheels_here, step("plain", "pure")).notes == ()


def test_a_slip_in_the_name_of_a_task_shows_the_one_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"x")
    with pytest.raises(BadInput, match="did you mean 'hugging-face-text-classification'\\? It packages onnx"):
        detect(path, "hugging-face-text-clasification")
