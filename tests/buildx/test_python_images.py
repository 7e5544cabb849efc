"""A pipeline with a python step before a native one, in images of both architectures made by the real `edgepack build`.

Needs the machine's own Debian mirror and package index; both are cached in the user's cache folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from arch.target import Target, host_target
from buildx.mirror import APT, find_mirror
from edge_agent.imports import fitting_bundles
from edgepack.errors import BadInput
from oci.image import Image
from oci.tar import Tar, read_tar
from oci.validate import validate
from tests.buildx.rootfs import serving, unpack, why_not_chroot
from tests.images.engine import NoEngine, arm_emulation

EXAMPLE = Path(__file__).parents[2] / "examples/python-step"
WHEELS = {"amd64": "x86_64", "arm64": "aarch64"}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    try:
        find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(str(error))
    project = Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("python") / "pump-wear"))
    program = "from edgepack.launch import edgepack; edgepack()"
    command = [sys.executable, "-c", program, "build", str(project), "--arch", "x86", "--arch", "arm", "--json"]
    command += ["-o", str(project.parent / "both.tar")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project.parent, check=False)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["path"])


@pytest.fixture(scope="module")
def roots(built, tmp_path_factory):
    images = {image.platform.architecture: image for image in read_tar(built).images}
    return {name: (image, unpack(image, tmp_path_factory.mktemp(name))) for name, image in images.items()}


def test_each_image_carries_the_wheels_of_its_own_architecture(built, roots):
    assert validate(Tar(built)) == []
    for name, (_, root) in roots.items():
        target = next(each for each in (Target("x86"), Target("arm")) if each.platform.architecture == name)
        bundle = fitting_bundles(root / "opt/edgepack/bundle", target)[0]
        wheels = [path for path in bundle.blobs if path.startswith("wheels/prepare/")]
        compiled = [path for path in wheels if not path.endswith("-any.whl")]
        assert any(path.startswith("wheels/prepare/numpy-") for path in compiled)
        assert all(WHEELS[name] in path for path in compiled)
        assert (root / "opt/edgepack/app/runtimes/shim/mac/inference/creation/__init__.py").is_file()


def answers(image: Image, root: Path, timeout_s: float = 90) -> tuple[list[float], list[float], str]:
    """What the image says to a golden row, what it should, and its metrics."""
    golden = json.loads((EXAMPLE / "golden.json").read_text())[0]
    row = {name.removeprefix("in."): value for name, value in golden.items() if name.startswith("in.")}
    with serving(image, root, timeout_s) as url:
        header = {"Content-Type": "application/json; format=pandas-records"}
        request = urllib.request.Request(f"{url}/infer", json.dumps([row]).encode(), header)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)[0]
        with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
            return found["out"]["hours_left"], golden["out.hours_left"], answer.read().decode()


def test_the_image_for_this_machine_answers_from_a_confined_worker(roots):
    reason = why_not_chroot()
    if reason:
        pytest.skip(reason)
    found, expected, metrics = answers(*roots[host_target().platform.architecture])
    assert found == pytest.approx(expected, rel=1e-4)
    assert re.search(r'edgepack_worker_up\{pipeline="pump-wear",step="prepare",[^}]*sandbox="landlock-', metrics)


@pytest.mark.images
@pytest.mark.timeout(300)
def test_the_arm_image_answers_under_an_emulator_and_says_that_only_limits_hold_there(roots):
    reason = why_not_chroot()
    if reason:
        pytest.skip(reason)
    try:
        with arm_emulation():
            found, expected, metrics = answers(*roots["arm64"], timeout_s=240)
    except NoEngine as error:
        pytest.skip(str(error))
    assert found == pytest.approx(expected, rel=1e-4)
    assert re.search(r'edgepack_worker_up\{pipeline="pump-wear",step="prepare",[^}]*sandbox="', metrics)
