"""The environments of all steps of a pipeline: for each target, and for the trial here."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from arch.target import Target, host_target
from arch.traits import traits_of
from bundle.pipeline import PipelineSpec, RoutingSpec
from columns.schema import Schema
from edgepack.errors import BadInput
from packager import step_environments, wheels
from packager.artifact import ModelArtifact
from packager.checks import Checklist
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


@pytest.fixture
def step_wheels(tmp_path: Path) -> StepWheels:
    local = tmp_path / "wheels"
    make_wheel(local, "pure", "1.2")
    for tag, version in (("x86_64", "3.1"), ("aarch64", "3.0")):
        for python in {"cp311", f"cp3{sys.version_info.minor}"}:  # the target's, and this machine's for the trial
            make_wheel(local, "native", version, {"native.py": b""}, f"{python}-{python}-manylinux_2_28_{tag}")
    (tmp_path / "project").mkdir()
    return StepWheels(tmp_path / "project", tmp_path / "cache", WheelSource(local), NO_INDEX)


def resolved(step_wheels: StepWheels, *steps: ModelArtifact, here: bool = False) -> StepEnvironments:
    return resolve_environments(steps, [X86, ARM], step_wheels, Checklist(), here=here)


def test_each_target_gets_the_wheels_of_each_step(step_wheels: StepWheels) -> None:
    found = resolved(step_wheels, step("one", "native"), step("plain"), step("two", "pure==1.2"))
    assert found.targets == [ARM, X86]
    assert sorted(found.wheels[ARM]) == [
        "wheels/one/native-3.0-cp311-cp311-manylinux_2_28_aarch64.whl",
        "wheels/two/pure-1.2-py3-none-any.whl",
    ]
    assert len(found.wheels[X86]) == 2
    here = f"cp3{sys.version_info.minor}"
    assert sorted(found.trial) == sorted(name.replace("cp311", here) for name in found.wheels[host_target()])
    workers = [each.worker for each in found.steps]
    assert workers[1] is None
    assert [worker.requirements for worker in workers if worker] == [("native",), ("pure==1.2",)]
    assert found.report["one"]["arm/none"] == {"python": "3.11", "wheels": {"native": "3.0"}, "changes": []}


def test_a_pipeline_without_workers_needs_nothing(step_wheels: StepWheels) -> None:
    found = resolved(step_wheels, step("plain"))
    assert (found.wheels, found.trial, found.report) == ({}, {}, {})
    assert found.targets == [ARM, X86]


def test_what_this_program_serves_is_for_its_own_interpreter(
    step_wheels: StepWheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(traits_of(host_target()), python="3.13")
    for module in (wheels, step_environments):
        monkeypatch.setattr(module, "host_traits", lambda: other)
    spec = [resolved(step_wheels, step("two", "pure==1.2"), here=here).steps[0].spec for here in (True, False)]
    assert [each.worker.python for each in spec if each.worker] == ["3.13", "3.11"]
    trial = resolved(step_wheels, step("two", "pure==1.2")).for_trial(PipelineSpec("p", [spec[1]]))
    assert trial.steps[0].worker is not None and trial.steps[0].worker.python == "3.13"


def test_models_of_a_split_are_run_in_the_trial_too(step_wheels: StepWheels) -> None:
    found = resolved(step_wheels, step("two", "pure==1.2"))
    model = found.steps[0].spec
    routed = msgspec.structs.replace(step("plain").spec, routing=RoutingSpec({"two": model}, shadow=["two"]))
    routing = replace(found, trial_python="3.13").for_trial(PipelineSpec("p", [routed])).steps[0].routing
    assert routing is not None and routing.models["two"].worker is not None
    assert routing.models["two"].worker.python == "3.13"


def test_a_requirement_without_a_wheel_is_a_failed_check(step_wheels: StepWheels) -> None:
    checklist = Checklist()
    with pytest.raises(BadInput, match=r"'native==3\.1', which has no wheel for Python 3\.11 on arm/none"):
        resolve_environments([step("one", "native==3.1")], [X86, ARM], step_wheels, checklist)
    assert [(check.key, check.passed) for check in checklist.checks] == [("model.wheels", False)]


def test_targets_of_two_pythons_are_packaged_one_by_one(
    step_wheels: StepWheels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(target: Target) -> object:
        return replace(traits_of(target), python="3.10") if target == ARM else traits_of(target)

    monkeypatch.setattr(step_environments, "traits_of", other)
    with pytest.raises(BadInput, match=r"arm/none has Python 3\.10, x86/none has 3\.11.*one by one"):
        resolve_environments([step("two", "pure")], [X86, ARM], step_wheels, Checklist())
    assert resolve_environments([step("plain")], [X86, ARM], step_wheels, Checklist()).targets == [ARM, X86]
