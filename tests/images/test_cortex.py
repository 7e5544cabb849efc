"""The image of a Cortex project as it was written: its predictor answers there as it does by itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import requests

from oci.tar import read_tar
from tests.frameworks.test_cortex import ASKED, EXAMPLE, by_itself
from tests.images.conftest import edgepack_build

pytestmark = [pytest.mark.images, pytest.mark.timeout(900)]


def test_the_image_of_a_predictor_answers_by_model_and_version(containerd_node, tmp_path: Path) -> None:
    project = shutil.copytree(EXAMPLE, tmp_path / "belt-api")
    edgepack_build(project, "--arch", "x86", "-o", str(tmp_path / "belts.tar"), environ=containerd_node.engine.environ)
    (image,) = read_tar(tmp_path / "belts.tar").images
    containerd_node.client.load(image, "belts:x86")
    payload = json.loads((EXAMPLE / "sample.json").read_bytes())
    with containerd_node.serving("belts:x86", "linux/amd64") as url:
        found = [requests.post(f"{url}/predict", params=each, json=payload, timeout=60).json() for each in ASKED]
    assert found == by_itself(payload)
