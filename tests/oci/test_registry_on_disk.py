"""A real registry whose disk went bad: what it gives is refused, and `validate` names it."""

from __future__ import annotations

import pytest

from edgepack.errors import NotTrusted, Unreachable
from oci.validate import validate
from tests.oci.conftest import Place, docker_registry
from tests.oci.make_images import TWO, artifact


def rot(place: Place, digest: str) -> None:
    held = place.folder / "docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"
    held.write_bytes(held.read_bytes()[:-1] + b"\xff")


def test_a_blob_that_rotted_in_a_real_registry_is_refused_and_named(tmp_path):
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as place, place.client() as registry:
        registry.push_index("a", "v1", TWO)
        bad = TWO.images[0].layers[1].descriptor
        rot(place, bad.digest)
        with pytest.raises(NotTrusted, match=f"blob {bad.digest} has the digest"):
            registry.pull_index("a", "v1", tmp_path / "layout")
        faults = validate(registry.source("a", "v1"))
        assert {fault.digest for fault in faults} == {bad.digest}


def test_what_is_said_of_an_image_rots_no_less_noticed(tmp_path):
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as place, place.client() as registry:
        registry.push_index("a", "v1", TWO)
        said = artifact(b"sbom", subject=TWO.images[0])
        registry.push_image("a", said)
        rot(place, said.layers[0].descriptor.digest)
        assert [fault.digest for fault in validate(registry.source("a", "v1"))] == [said.layers[0].descriptor.digest]
        rot(place, said.digest)  # a manifest this registry checks by itself, and then gives up
        with pytest.raises(Unreachable, match=f"answers 500 for 'a/manifests/{said.digest}'"):
            validate(registry.source("a", "v1"))
