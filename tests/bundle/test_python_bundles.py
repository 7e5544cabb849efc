"""Bundles with python steps: models that are folders, and wheels of their own for each target."""

from __future__ import annotations

from pathlib import Path

import pytest

from arch.target import Target
from bundle import media
from bundle.bundle import bundles, folder_sha256, pack
from bundle.pipeline import PipelineSpec, StepSpec, WorkerSpec, wheel_path
from bundle.store import OpenBundle, unpack
from edgepack.errors import BadInput, NotTrusted
from oci.digest import Digest
from oci.image import Index

X86, ARM = Target.parse("x86"), Target.parse("arm")
FILES = {"step.py": b"def process_data(): pass\n", "deep/weights.bin": b"\0" * 5}


def step(**changes) -> StepSpec:
    said = {
        "name": "prepare",
        "model": "models/prepare",
        "framework": "python",
        "runtime": "python",
        "input": {"x": "float32"},
        "output": {"y": "float32"},
        "worker": WorkerSpec("step", "3.11", ("numpy==2.4.6",), {"a": 1}),
    }
    return StepSpec(**{**said, **changes})


def packed(folder: Path, said: StepSpec) -> Index:
    paths, wheels = {}, {}
    for name, data in FILES.items():
        paths[f"models/prepare/{name}"] = folder / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    for target, tag in ((X86, "x86_64"), (ARM, "aarch64")):
        file = folder / f"numpy-2.4.6-cp311-cp311-linux_{tag}.whl"
        file.write_bytes(tag.encode())
        wheels[target] = {wheel_path("prepare", file.name): file}
    return pack(PipelineSpec("demo", [said]), paths, b"[]", [X86, ARM], wheels)


def test_each_target_has_the_same_spec_and_its_own_wheels(tmp_path):
    arm, x86 = bundles(packed(tmp_path, step()))
    assert (arm.target, x86.target) == (ARM, X86)
    assert arm.image.config.descriptor == x86.image.config.descriptor
    differing = set(arm.blobs) ^ set(x86.blobs)
    assert differing == {
        "wheels/prepare/numpy-2.4.6-cp311-cp311-linux_aarch64.whl",
        "wheels/prepare/numpy-2.4.6-cp311-cp311-linux_x86_64.whl",
    }
    assert all(arm.blobs[path].descriptor.media_type == media.WHEEL for path in differing & set(arm.blobs))
    assert arm.blobs["models/prepare/step.py"] is x86.blobs["models/prepare/step.py"]


def test_a_target_whose_base_has_another_python_has_a_spec_of_its_own(tmp_path):
    """What both have, models and golden rows, they still share."""
    (tmp_path / "step.py").write_bytes(b"")
    workers = {X86: "3.11", ARM: "3.10"}
    specs = {
        target: PipelineSpec("demo", [step(worker=WorkerSpec("step", python))]) for target, python in workers.items()
    }
    index = pack(specs, {"models/prepare/step.py": tmp_path / "step.py"}, b"[]", workers)
    arm, x86 = bundles(index)
    assert [each.spec.steps[0].worker.python for each in (arm, x86)] == ["3.10", "3.11"]
    assert arm.image.layers == x86.image.layers
    same = pack({**specs, ARM: specs[X86]}, {"models/prepare/step.py": tmp_path / "step.py"}, b"[]", workers)
    assert same.images[1].digest == x86.digest and same.images[0].digest != arm.digest


def test_a_model_may_be_a_folder_with_a_digest_over_its_files(tmp_path):
    sha256 = folder_sha256({name: Digest.of(data) for name, data in FILES.items()})
    bundle = bundles(packed(tmp_path, step(sha256=sha256)))[1]
    opened = OpenBundle(unpack(bundle, tmp_path / "bundles"))
    folder = opened.model(bundle.spec.steps[0].model)
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == set(FILES)
    assert [path.name for path in opened.wheels("prepare")] == ["numpy-2.4.6-cp311-cp311-linux_x86_64.whl"]
    assert [*opened.wheels("prepare").values()] == [Digest.of(b"x86_64")]
    assert opened.wheels("pre") == {}
    with pytest.raises(NotTrusted, match="step 'prepare' names model 'models/prepare' with sha256"):
        bundles(packed(tmp_path, step(sha256="0" * 64)))


def test_the_digest_of_a_folder_depends_on_names_and_content():
    one = folder_sha256({"a": "sha256:1", "b": "sha256:2"})
    assert one == folder_sha256({"b": "sha256:2", "a": "sha256:1"})
    assert len({one, folder_sha256({"a": "sha256:2", "b": "sha256:1"}), folder_sha256({"a": "sha256:1"})}) == 3


def test_a_folder_without_files_is_no_model(tmp_path):
    with pytest.raises(BadInput, match="model 'models/other' of pipeline 'demo' is not among"):
        packed(tmp_path, step(model="models/other"))
    with pytest.raises(BadInput, match="model 'models/prep' of"):
        packed(tmp_path, step(model="models/prep"))


def test_a_worker_belongs_to_the_runtime_python_alone():
    for said in (step(worker=None), step(runtime="onnx")):
        with pytest.raises(BadInput, match="'python' has a worker, others have none"):
            PipelineSpec.decode(PipelineSpec("demo", [said]).encode())
    with pytest.raises(BadInput, match=r"has python '3', expected one like '3\.11'"):
        PipelineSpec.decode(PipelineSpec("demo", [step(worker=WorkerSpec("step", "3"))]).encode())


def test_what_a_worker_says_comes_back_and_a_step_without_one_does_not_mention_it():
    spec = PipelineSpec("demo", [step()])
    assert PipelineSpec.decode(spec.encode()) == spec
    assert spec.python_models == [step()]
    native = PipelineSpec("demo", [step(runtime="onnx", worker=None)])
    assert b"worker" not in native.encode()
    assert native.python_models == []
