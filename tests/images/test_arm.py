"""The ARM image's own Python, libraries and bundle answer, under an emulator that is unpacked and run in place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest

from buildx.archive import DebianArchive
from buildx.debian import read_deb
from buildx.mirror import APT, find_mirror
from buildx.report import Quiet
from edgepack.errors import EdgepackError
from oci.tar import read_tar
from tests.buildx.rootfs import unpack, why_not_chroot

pytestmark = pytest.mark.images
EXAMPLE = Path(__file__).parents[2] / "examples/wine-line"
# older emulators crash in numpy: this one is trixie's
SHA256 = "ca6ede739327a20ae5a3498230c8a3a9a072c586e131bc6bcc1201eb1725e336"
PROGRAM = """
import sys
sys.path.insert(0, "/opt/edgepack/app")
import platform
from pathlib import Path
import numpy, onnxruntime, pyarrow.ipc
from arch.target import host_target
from edge_agent.imports import fitting_bundles
bundle = fitting_bundles(Path("/opt/edgepack/bundle"), host_target())[0]
session = onnxruntime.InferenceSession(bundle.blobs[bundle.spec.steps[0].model].open().read())
answers = session.run(None, {session.get_inputs()[0].name: numpy.ones((1, 13), numpy.float32)})
print(platform.machine(), bundle.target, len(answers))
"""


def emulator(root: Path) -> str:
    """Put a static emulator into the image's files; its path there."""
    reason = why_not_chroot()
    if reason or os.uname().machine != "x86_64":
        pytest.skip(reason or "the emulator is the one for x86_64")
    try:
        archive = DebianArchive(
            find_mirror(os.environ, APT), platformdirs.user_cache_path("edgepack") / "debian", Quiet()
        )
        package = archive.index("trixie", "amd64")["qemu-user"]
        if package.sha256 != SHA256:
            pytest.skip(f"the mirror has qemu-user {package.version}: pin it in tests/images/test_arm.py")
        data = read_deb(archive.packages([package])[0]).data
    except EdgepackError as error:
        pytest.skip(f"no emulator: {error}")
    program = root / "tmp/emulator"
    program.write_bytes(data.extractfile("./usr/bin/qemu-aarch64").read())
    program.chmod(0o755)
    return "/tmp/emulator"


def test_the_arm_image_answers_under_emulation(tmp_path):
    source = shutil.copytree(EXAMPLE, tmp_path / "wine-line")
    command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()", "build", str(source), "--json"]
    done = subprocess.run([*command, "--arch", "arm"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    image = read_tar(tmp_path / json.loads(done.stdout)["path"]).images[0]
    root = unpack(image, tmp_path / "root")
    program = emulator(root)
    run = ["chroot", "--userspec=65532:65532", str(root), program, "/usr/bin/python3.11", "-c", PROGRAM]
    answered = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    assert answered.stdout.split() == ["aarch64", "arm/none", "2"], answered.stderr
