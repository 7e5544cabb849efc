"""A Python step in front of an XGBoost model, in the image for ARM: run under an emulator, answering every row."""

from __future__ import annotations

from pathlib import Path

import pytest

from oci.tar import read_tar
from tests.frameworks.test_python_steps import crane, golden, same
from tests.images.conftest import edgepack_build
from tests.images.containers import infer

__all__ = ["crane"]
pytestmark = [pytest.mark.images, pytest.mark.timeout(900)]

START_S = 600  # the agent unpacks and compiles numpy before the worker's first start, and all of that is emulated


def test_the_arm_image_of_a_python_step_and_a_booster_answers_under_an_emulator(
    containerd_node, arm, crane: Path, tmp_path: Path
) -> None:
    """The worker process, its wheels and the converted booster all run as ARM programs."""
    edgepack_build(crane, "--arch", "arm", "-o", str(tmp_path / "crane.tar"))
    (image,) = read_tar(tmp_path / "crane.tar").images
    containerd_node.client.load(image, "crane:arm-none")
    asked, expected = golden(crane)
    with containerd_node.serving("crane:arm-none", "linux/arm64/v8", START_S) as url:
        assert same([row["out"] for row in infer(url, asked)], expected)
        assert same([row["out"] for row in infer(url, asked[:1])], expected[:1])
