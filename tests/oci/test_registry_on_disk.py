"""A real registry whose disk went bad: what it gives is refused, and `validate` names it."""

from __future__ import annotations

import pytest

from edgepack.errors import NotTrusted
from oci.validate import validate
from tests.oci.conftest import docker_registry
from tests.oci.make_images import TWO


def test_a_blob_that_rotted_in_a_real_registry_is_refused_and_named(tmp_path):
    (tmp_path / "registry").mkdir()
    with docker_registry(tmp_path / "registry") as place, place.client() as registry:
        registry.push_index("a", "v1", TWO)
        bad = TWO.images[0].layers[1].descriptor
        held = place.folder / "docker/registry/v2/blobs/sha256" / bad.digest[7:9] / bad.digest[7:] / "data"
        held.write_bytes(held.read_bytes()[:-1] + b"\xff")
        with pytest.raises(NotTrusted, match=f"blob {bad.digest} has the digest"):
            registry.pull_index("a", "v1", tmp_path / "layout")
        faults = validate(registry.source("a", "v1"))
        assert {fault.digest for fault in faults} == {bad.digest}
