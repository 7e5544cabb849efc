"""`edgepack serve` with a real engine: it starts the container of a step, answers through it, and takes it away."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from oci.blob import BytesBlob
from oci.image import Image
from tests.images.containers import Node
from tests.runtimes.scoring import ask_agent

pytestmark = [pytest.mark.images, pytest.mark.timeout(600)]

SERVER = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer
class Scoring(BaseHTTPRequestHandler):
    def do_GET(self):
        self.give({})
    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.give({"predictions": [row["a"] + row["b"] for row in said["dataframe_records"]]})
    def give(self, said):
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
HTTPServer(("0.0.0.0", 8080), Scoring).serve_forever()
"""


def scoring_image(image: Image, command: list[str]) -> Image:
    """An image of ours with another program in it: the Python that it has runs a scoring server."""
    with image.config.open() as file:
        config = json.load(file)
    python = config["config"]["Entrypoint"][0]
    config["config"] |= {"Entrypoint": [python], "Cmd": command, "Healthcheck": {"Test": ["NONE"]}}
    made = BytesBlob.of(json.dumps(config).encode(), image.config.descriptor.media_type)
    return replace(image, config=made)


@pytest.fixture(scope="module")
def reference(containerd_node: Node, images: dict[str, Image]) -> str:
    """The scoring image in the engine, by digest."""
    name = "plant/sum:1"
    containerd_node.client.load(scoring_image(images["amd64"], ["-c", SERVER]), name)
    return str(containerd_node.client.client.images.get(name).attrs["RepoDigests"][0])


def project(folder: Path, image: str, name: str = "adder") -> Path:
    folder.mkdir()
    (folder / "edgepack.toml").write_text(
        f'[pipeline]\nname = "{name}"\n[[steps]]\nname = "sum"\nframework = "mlflow-image"\nimage = "{image}"\n'
        '[steps.input]\na = "float64"\nb = "float64"\n[steps.output]\ntotal = "float64"\n'
    )
    return folder


def serve(node: Node, *sources: Path) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()"]
    place = sources[0].parent
    command = [*program, "serve", *map(str, sources), "--port", "0", "--data", str(place / "data")]
    environ = {**node.engine.environ, "EDGEPACK_CACHE": str(place / "cache")}
    environ.pop("EDGEPACK_STEP_SUM_URL", None)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)


def ours(node: Node) -> list[Any]:
    return list(node.client.client.containers.list(all=True, filters={"label": "io.edgepack.step=sum"}))


def test_serve_starts_the_container_answers_through_it_and_takes_it_away(
    containerd_node: Node, reference: str, tmp_path: Path
) -> None:
    with serve(containerd_node, project(tmp_path / "p", reference)) as agent:
        try:
            assert agent.stdout and agent.stderr
            line = agent.stdout.readline()
            assert line, agent.stderr.read()
            url = line.split(" on ")[1].split()[0]
            assert ask_agent(url) == (200, {"total": 3.5})
            (container,) = ours(containerd_node)
            limits = container.attrs["HostConfig"]
            assert limits["Memory"] == 1 << 30 and limits["SecurityOpt"] == ["no-new-privileges"]
            assert {each["HostIp"] for each in limits["PortBindings"]["8080/tcp"]} == {"127.0.0.1"}
            container.kill()
            status, words = ask_agent(url)
            assert status == 503 and words.startswith("the container of step 'sum' ")
            container.start()
            end = time.monotonic() + 60
            while ask_agent(url)[0] != 200:
                assert time.monotonic() < end
                time.sleep(0.1)
        finally:
            agent.terminate()
            _, said = agent.communicate(timeout=120)
    assert f"step 'sum' is answered by {reference}" in said
    assert ours(containerd_node) == []


def test_two_pipelines_with_the_same_container_share_it(containerd_node: Node, reference: str, tmp_path: Path) -> None:
    names = ("one", "two")
    with serve(containerd_node, *(project(tmp_path / name, reference, name) for name in names)) as agent:
        try:
            assert agent.stdout and agent.stderr
            line = agent.stdout.readline()
            assert line, agent.stderr.read()
            url = line.split(" on ")[1].split()[0]
            assert [ask_agent(url, f"/pipelines/{name}") for name in names] == [(200, {"total": 3.5})] * 2
            assert len(ours(containerd_node)) == 1
        finally:
            agent.terminate()
            agent.communicate(timeout=120)
    assert ours(containerd_node) == []


def test_a_container_that_ends_at_once_or_is_nowhere_is_told_and_refuses_with_503(
    containerd_node: Node, images: dict[str, Image], tmp_path: Path
) -> None:
    containerd_node.client.load(scoring_image(images["amd64"], ["-c", "raise SystemExit('no weights')"]), "plant/bad:1")
    bad = str(containerd_node.client.client.images.get("plant/bad:1").attrs["RepoDigests"][0])
    nowhere = f"127.0.0.1:1/plant/none@sha256:{'a' * 64}"
    for number, (image, words) in enumerate(((bad, "ended at once: no weights"), (nowhere, "does not start"))):
        place = tmp_path / str(number)
        place.mkdir()
        with serve(containerd_node, project(place / "p", image)) as agent:
            try:
                assert agent.stdout and agent.stderr
                line = agent.stdout.readline()
                assert line, agent.stderr.read()
                assert ask_agent(line.split(" on ")[1].split()[0])[0] == 503
            finally:
                agent.terminate()
                _, said = agent.communicate(timeout=120)
        assert words in said, said
        assert ours(containerd_node) == []
