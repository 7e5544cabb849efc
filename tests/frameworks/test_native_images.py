"""The images of `examples/text-triage`, of real packages and wheels: what they hold, and what they answer."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import requests

from arch.target import host_target
from buildx.mirror import APT, find_mirror
from edgepack.errors import BadInput
from oci.image import Image
from oci.tar import read_tar
from oci.validate import validate
from tests.buildx.rootfs import serving, unpack, why_not_chroot
from tests.buildx.test_real_images import edgepack_build

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

EXAMPLE = Path(__file__).parents[2] / "examples/text-triage"
LIMIT = 90_000_000  # bytes; with the pipeline in a worker it is 313 MB
JSON = {"Content-Type": "application/json; format=pandas-records"}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    try:
        find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(f"no Debian mirror: {error}")
    folder = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("images") / "text-triage"))
    found = edgepack_build(folder, "--arch", "x86", "--arch", "arm", "-o", str(folder / "both.oci.tar"))
    assert found["parity"]["runtime"] == "onnx"
    index = read_tar(folder / "both.oci.tar")
    validate(index)
    return {image.platform.architecture: image for image in index.images if image.platform}


@pytest.fixture(scope="module")
def roots(images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: unpack(image, tmp_path_factory.mktemp(name)) for name, image in images.items()}


@pytest.mark.parametrize("machine", ["amd64", "arm64"])
def test_an_image_has_a_tokenizer_and_nothing_of_torch(
    machine: str, images: dict[str, Image], roots: dict[str, Path]
) -> None:
    packages = {path.name for path in roots[machine].rglob("*") if path.is_dir() and (path / "__init__.py").is_file()}
    assert {"tokenizers", "onnxruntime", "numpy"} <= packages
    assert not packages & {"torch", "transformers", "huggingface_hub", "PIL", "ai_edge_litert"}
    assert sum(layer.descriptor.size for layer in images[machine].layers) < LIMIT


def test_the_image_answers_as_the_pipeline_did(images: dict[str, Image], roots: dict[str, Path]) -> None:
    if why := why_not_chroot():
        pytest.skip(why)
    golden: list[dict[str, Any]] = json.loads((EXAMPLE / "golden.json").read_text())
    rows = [{name: row[f"in.{name}"] for name in ("inputs", "top_k")} for row in golden]
    here = host_target().platform.architecture
    with serving(images[here], roots[here]) as url:
        answers = requests.post(f"{url}/infer", json.dumps(rows), headers=JSON, timeout=60).json()
    for row, answer in zip(golden, answers, strict=True):
        assert answer["out"]["label"] == row["out.label"]
        assert answer["out"]["score"] == pytest.approx(row["out.score"], abs=1e-5)
