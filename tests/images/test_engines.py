"""Images whose engine is another than the plain one: what they hold, and that a container of them computes with it."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from arch.providers import CPU, OPENVINO
from oci.image import Image
from oci.tar import read_tar
from tests.buildx.test_build import files
from tests.images.conftest import EXAMPLE, edgepack_build
from tests.images.containers import assert_answers_as_golden

pytestmark = pytest.mark.images

LARGEST_BYTES = {"x86/openvino": 120_000_000, "x86/old": 70_000_000}  # 113.3 and 66.1 MB when they were measured
OLD = 'target = "x86/old"\n[replace]\nai-edge-litert = ["tflite-runtime>=2.14", "numpy<2"]\n'


def project_of(example: str, folder: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE.parent / example, folder / example))


def built(project: Path, target: str) -> tuple[Image, dict[str, str]]:
    """The image for a target, and the versions of its packages."""
    said = edgepack_build(project, "--target", target, "-o", str(project.parent / "image.tar"))
    assert said["size_bytes"] < LARGEST_BYTES[target]
    (image,) = read_tar(Path(said["path"])).images
    named = {name.split("/")[-2] for name in files(image) if name.endswith(".dist-info/METADATA")}
    return image, dict(name.removesuffix(".dist-info").rsplit("-", 1) for name in named)


def asked(url: str, path: str) -> Any:
    with urllib.request.urlopen(f"{url}{path}", timeout=30) as answer:
        return answer.read().decode()


def test_the_image_for_openvino_has_its_build_of_the_engine_alone_and_computes_with_it(containerd_node, tmp_path):
    project = project_of("digits-camera", tmp_path)
    image, packages = built(project, "x86/openvino")
    assert "onnxruntime_openvino" in packages and not {"onnxruntime", "sympy"} & set(packages)
    containerd_node.client.load(image, "digits-camera:x86-openvino")
    with containerd_node.serving("digits-camera:x86-openvino", "linux/amd64") as url:
        assert_answers_as_golden(url, project)
        (model,) = json.loads(asked(url, "/models"))["models"]
    assert (model["providers"], model["skipped"]) == ([OPENVINO, CPU], {})


def test_a_target_of_ones_own_may_have_tflite_runtime_with_the_numpy_that_it_needs(containerd_node, tmp_path):
    project = project_of("vibration-anomaly", tmp_path)
    (project / "targets").mkdir()
    (project / "targets" / "old.toml").write_text(OLD)
    image, packages = built(project, "x86/old")
    assert "tflite_runtime" in packages and "ai_edge_litert" not in packages
    assert packages["numpy"].startswith("1.26.")
    containerd_node.client.load(image, "vibration-anomaly:x86-old")
    with containerd_node.serving("vibration-anomaly:x86-old", "linux/amd64") as url:
        assert_answers_as_golden(url, project)
        assert 'engine="tflite-runtime 2.14.0' in asked(url, "/metrics")
