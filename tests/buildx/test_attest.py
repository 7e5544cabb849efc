"""SBOM and provenance of an image: valid, the same every time, outside its digest, listed by a registry."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from arch.target import Target
from buildx.attest import attest
from edgepack.commands._push import Push
from oci.reference import Reference
from oci.registry import Registry
from oci.tar import Tar, read_tar
from oci.validate import validate
from tests.buildx.test_build import ARM, X86, Bench
from tests.fakes.registry import FakeRegistry


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def documents(path):
    with tarfile.open(path) as tar:
        names = [name for name in tar.getnames() if name.startswith("attestations/")]
        return {name: tar.extractfile(name).read() for name in names}


def test_the_tar_holds_both_for_each_target_and_is_as_sound_as_before(bench):
    built = bench.build(X86, ARM)
    found = documents(built.path)
    assert sorted(found) == [
        *("attestations/arm-none.cdx.json", "attestations/arm-none.provenance.json"),
        *("attestations/x86-none.cdx.json", "attestations/x86-none.provenance.json"),
    ]
    assert validate(Tar(built.path)) == []
    assert len(read_tar(built.path).images) == 2


def test_the_sbom_is_valid_and_names_wheels_base_agent_and_models_by_digest(bench):
    built = bench.build(X86)
    text = documents(built.path)["attestations/x86-none.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    said = json.loads(text)
    assert said["metadata"]["component"]["hashes"][0]["content"] == built.digest.removeprefix("sha256:")
    assert said["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    by_name = {each["name"]: each for each in said["components"]}
    assert {"numpy", "onnxruntime", "edgepack-agent", "m.onnx", "base"} <= set(by_name)
    assert by_name["m.onnx"]["type"] == "machine-learning-model"
    model = next(iter(bench.bundle.images[0].layers)).descriptor
    assert by_name["m.onnx"]["hashes"][0]["content"] == model.digest.removeprefix("sha256:")
    assert by_name["numpy"]["purl"].startswith("pkg:pypi/numpy@1.26.0")


def test_the_provenance_is_an_in_toto_statement_about_the_image_and_names_no_machine(bench):
    built = bench.build(X86)
    text = documents(built.path)["attestations/x86-none.provenance.json"]
    said = json.loads(text)
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://slsa.dev/provenance/v1"
    assert said["subject"] == [{"name": "tiny", "digest": {"sha256": built.digest.removeprefix("sha256:")}}]
    definition = said["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"pipeline": "tiny", "target": "x86/none"}
    assert all(each["digest"] for each in definition["resolvedDependencies"])
    assert str(bench.folder).encode() not in text


def test_both_are_the_same_every_time(bench):
    first = documents(bench.build(X86).path)
    assert documents(bench.build(X86, layer_cache=False).path) == first


def test_a_registry_lists_them_under_the_image(bench):
    with FakeRegistry() as there, Registry(there.host) as registry:
        built = bench.build(X86, sinks=[Push(registry, Reference.parse(f"{there.host}/our/tiny:1"), None)])
        found = registry.referrers("our/tiny", built.digest)
        assert {each.artifact_type for each in found} == {
            *("application/vnd.cyclonedx+json", "application/vnd.in-toto+json")
        }
        assert registry.pull_manifest("our/tiny", "1")


def test_without_the_library_there_is_provenance_and_a_notice(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "cyclonedx.model.bom", None)
    built = bench.build(Target("x86"))
    assert list(documents(built.path)) == ["attestations/x86-none.provenance.json"]
    assert any("pip install 'edgepack[packager]'" in notice for notice in bench.report.notices)


def test_the_library_is_loaded_only_when_an_sbom_is_written():
    code = "import sys, buildx, edgepack.commands.build; assert 'cyclonedx' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert attest.__doc__
