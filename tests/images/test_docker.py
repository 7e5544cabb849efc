"""What only an engine can show: `docker load` takes the file, and `docker run IMAGE` serves without further flags."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.images.engine import NoEngine, running

pytestmark = pytest.mark.images
EXAMPLE = Path(__file__).parents[2] / "examples/wine-line"
ROW = {"inputs": [13.2, 2.8, 2.4, 18.0, 98.0, 2.2, 1.9, 0.3, 1.5, 5.0, 1.0, 3.1, 750.0]}


@pytest.fixture(params=[True, False], ids=["containerd store", "overlay2"])
def engine(request):
    try:
        context = running(containerd_store=request.param)
        started = context.__enter__()
    except NoEngine as error:
        pytest.skip(str(error))
    try:
        yield started
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> dict:
    source = shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("image") / "wine-line")
    command = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()", "build", str(source), "--json"]
    done = subprocess.run(
        [*command, "--arch", "x86"], capture_output=True, text=True, cwd=source.parent, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return {**said, "path": str(source.parent / said["path"])}


def test_docker_loads_the_file_and_the_image_serves(engine, image):
    print(engine.docker("load", "-i", image["path"]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # no bridge in this engine, so the container listens on the machine's own loopback
    hardened = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    where = ["--network", "host", "-e", f"EDGEPACK_PORT={port}", "-e", "EDGEPACK_HOST=127.0.0.1"]
    name = engine.docker("run", "--detach", *hardened, *where, image["image"])
    try:
        row = _infer(engine, name, f"http://127.0.0.1:{port}")
        assert row["in"] == ROW
        assert engine.docker("exec", name, "/usr/bin/python3.11", "-c", "import os; print(os.getuid())") == "65532"
    finally:
        engine.docker("rm", "--force", "--volumes", name)
    assert json.loads(engine.docker("inspect", image["image"]))[0]["Config"]["User"] == "65532:65532"


def _infer(engine, name: str, url: str) -> dict:
    end = time.monotonic() + 30
    while True:
        header = {"Content-Type": "application/json; format=pandas-records"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/infer", json.dumps([ROW]).encode(), header), timeout=10
            ) as answer:
                return json.load(answer)[0]
        except OSError as error:
            assert time.monotonic() < end, f"{error}: {engine.docker('logs', name)}"
            time.sleep(0.1)
