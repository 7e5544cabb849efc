"""`edgepack build --push` with a real registry, and with one that refuses, lies or goes away."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from oci.registry import Registry
from oci.tar import read_tar
from oci.validate import examine, validate
from tests.buildx.parts import agent_wheels, make_base
from tests.commands.test_build import EXAMPLE, edgepack
from tests.fakes.registry import FakeRegistry, Lies
from tests.oci.conftest import docker_registry, hub_registry


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    return tmp_path


@pytest.fixture
def offline(tmp_path) -> list[str]:
    """What makes a build need no network."""
    base, wheels = make_base(tmp_path / "base"), agent_wheels(tmp_path / "wheels")
    return ["wine.onnx", "--arch", "arm", "--base", str(base), "--wheels", str(wheels)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with docker_registry(tmp_path_factory.mktemp("registry")) as place:
        yield place


def pushed(folder: Path, *arguments: str, **environ: str) -> dict:
    done = edgepack("build", *arguments, "--json", cwd=folder, **environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stored(folder: Path) -> list[Path]:
    """The files that a docker-registry keeps, each once, however many repositories name it."""
    return list((folder / "docker/registry/v2/blobs/sha256").glob("*/*/data"))


def links(folder: Path, repository: str) -> set[str]:
    """What one repository of a docker-registry holds."""
    return {path.name for path in (folder / f"docker/registry/v2/repositories/{repository}/_layers/sha256").glob("*")}


def test_a_push_has_the_digest_that_the_tar_has_and_writes_a_file_only_with_o(registry, project, offline):
    reference = f"{registry.host}/plant/wine:1"
    said = pushed(project, *offline, "--push", reference)
    assert (said["image"], said["path"], said["size_bytes"]) == (reference, None, None)
    assert not (project / "dist").exists()
    again = pushed(project, *offline, "--push", reference, "-o", "wine.tar")
    assert again["digest"] == said["digest"] == read_tar(project / "wine.tar").images[0].digest
    with Registry(registry.host) as client:
        assert validate(client.source("plant/wine", said["digest"])) == []


def test_a_second_push_sends_only_the_bundle_and_what_names_it(registry, project, offline):
    first = pushed(project, *offline, "--push", f"{registry.host}/plant/small:1")
    before = {path.parent.name for path in stored(registry.folder)}
    head = '[pipeline]\nname = "wine"\n[[steps]]\nmodel = "wine.onnx"\n'
    toml = f'{head}[validations]\nhigh = "out.probabilities[0] > 0.9"\n'
    (project / "edgepack.toml").write_text(toml)
    second = pushed(project, ".", *offline[1:], "--push", f"{registry.host}/plant/small:2")
    layers = {layer["digest"] for layer in second["layers"]}
    (bundle,) = layers - {layer["digest"] for layer in first["layers"]}
    sent = {path.parent.name: path.stat().st_size for path in stored(registry.folder) if path.parent.name not in before}
    assert layers & {f"sha256:{digest}" for digest in sent} == {bundle}, "only the bundle's layer is another"
    small = sum(size for digest, size in sent.items() if f"sha256:{digest}" != bundle)
    print(f"a model change pushes {len(sent)} blobs, {sum(sent.values())} bytes")
    assert small < 64_000, "config, manifest and what is said of them"


def test_a_base_of_the_same_registry_is_mounted_not_sent(registry, project, offline):
    from oci.layout import Layout

    base = f"{registry.host}/plant/base:1"
    with Registry(registry.host) as client:
        client.push_index("plant/base", "1", Layout(project / "base").index())
    log = registry.folder.parent / "log"
    before = len(log.read_text())
    flags = ["--arch", "arm", "--base", base, *offline[5:], "--push", f"{registry.host}/plant/mounted:1"]
    (layer,) = [each["digest"] for each in pushed(project, "wine.onnx", *flags)["layers"] if each["kind"] == "base"]
    assert layer.removeprefix("sha256:") in links(registry.folder, "plant/mounted")
    mount = re.compile(rf"POST /v2/plant/mounted/blobs/uploads/\?mount={layer.replace(':', '%3A')}\S* HTTP/1.1. 201")
    assert mount.search(log.read_text()[before:])


def test_several_targets_are_pushed_as_one_index(registry, project, offline):
    said = pushed(project, *offline, "--arch", "x86", "--push", f"{registry.host}/plant/both:1")
    with Registry(registry.host) as client:
        found = examine(client.source("plant/both", "1"))
    assert (found.faults, found.images, found.referrers) == ((), 6, 4), "an SBOM and a provenance for each image"
    assert {each["platform"] for each in said["images"]} == {"linux/amd64", "linux/arm64/v8"}


def test_a_hub_takes_an_image_with_what_is_said_of_it_and_verify_proves_all_of_it(project, offline, tmp_path):
    """The hub has the referrers API; docker-registry above has not, and gets the fallback tags."""
    with hub_registry(tmp_path / "hub") as hub:
        known = {"EDGEPACK_HUB": f"http://{hub.host}", "EDGEPACK_TOKEN": hub.auth.token}
        reference = f"{hub.host}/plant/wine:1"
        said = pushed(project, *offline, "--push", reference, **known)
        with hub.client() as client:
            kinds = {each.artifact_type for each in client.referrers("plant/wine", said["digest"])}
            tags = client.pull_manifest("plant/wine", "1")[1]
        assert kinds == {"application/vnd.cyclonedx+json", "application/vnd.in-toto+json"}
        assert tags == "application/vnd.oci.image.manifest.v1+json"
        done = edgepack("verify", reference, cwd=project, **known)
        assert (done.returncode, done.stderr) == (0, "")
        assert "is whole: 3 manifests (2 of them said about others)" in done.stdout


def test_what_docker_login_keeps_opens_a_guarded_registry_and_is_never_shown(project, offline, tmp_path):
    (tmp_path / "guarded").mkdir()
    with docker_registry(tmp_path / "guarded", auth=True) as place:
        refused = edgepack("build", *offline, "--push", f"{place.host}/a:1", cwd=project, DOCKER_CONFIG=str(tmp_path))
        assert refused.returncode == 2
        (line,) = [line for line in refused.stderr.splitlines() if not line.startswith("note:")]
        assert "refuses" in line and "credentials" in line
        helper = tmp_path / "bin/docker-credential-plant"
        helper.parent.mkdir()
        helper.write_text('#!/bin/sh\necho \'{"Username": "publisher", "Secret": "correct horse"}\'\n')
        helper.chmod(0o755)
        (tmp_path / "config.json").write_text('{"credsStore": "plant"}')
        path = f"{helper.parent}:{os.environ['PATH']}"
        done = edgepack(
            "build", *offline, "--push", f"{place.host}/a:1", cwd=project, DOCKER_CONFIG=str(tmp_path), PATH=path
        )
        assert done.returncode == 0, done.stderr
        assert f"pushed  {place.host}/a:1" in done.stdout
        assert "correct horse" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("lies", "code", "expected"),
    [
        (Lies(fail_first=10**6, fail_status=503), 1, "answers 503 for 'a/blobs/sha256:"),
        (Lies(fail_first=10**6, fail_status=507), 1, "answers 507"),
        (Lies(upload_to="http://192.0.2.1"), 1, "sends an upload to http://192.0.2.1: refused"),
    ],
    ids=["is overloaded", "is full", "sends elsewhere"],
)
def test_a_registry_that_does_not_take_it_is_one_line(project, offline, lies, code, expected):
    with FakeRegistry(lies=lies) as fake:
        done = edgepack("build", *offline, "--push", f"{fake.host}/a:1", cwd=project)
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert expected in line
    assert done.returncode == code
    assert not (project / "dist").exists()


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("wine:1", "names no registry"),
        ("127.0.0.1:1/a@sha256:" + "0" * 64, "which follows from the image"),
        ("me:secret@host/a", "holds no user or password"),
    ],
)
def test_a_place_that_cannot_be_pushed_to_is_refused_before_anything_is_built(project, reference, expected):
    done = edgepack("build", "wine.onnx", "--push", reference, cwd=project)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert expected in done.stderr
    assert "secret" not in done.stderr


def test_ctrl_c_during_a_push_is_one_line_and_leaves_the_cache_sound(project, offline):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        code = "from edgepack.launch import edgepack; edgepack()"
        command = [sys.executable, "-c", code, "build", *offline, "--push", f"{host}/a:1"]
        environ = {**os.environ, "EDGEPACK_CACHE": str(project / "cache"), "UV_OFFLINE": "1"}
        process = subprocess.Popen(command, cwd=project, env=environ, stderr=subprocess.PIPE, text=True)
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
    lines = [line for line in said.splitlines() if line and not line.startswith("note:")]
    assert (process.returncode, lines) == (130, ["interrupted"])
    built = pushed(project, *offline, "-o", "wine.tar")
    assert {layer["cached"] for layer in built["layers"]} == {True}, "what was made is kept, and whole"


def test_emitted_files_lie_beside_the_image_and_name_what_was_pushed(registry, project, offline):
    said = pushed(
        project,
        *offline,
        "--push",
        f"{registry.host}/plant/run:1",
        "-o",
        "out/wine.tar",
        "--emit",
        "compose",
        "--emit",
        "k8s",
    )
    assert said["emitted"] == ["out/wine-arm-none.compose.yaml", "out/wine-arm-none.k8s.yaml"]
    text = (project / "out/wine-arm-none.compose.yaml").read_text()
    assert f'image: "{registry.host}/plant/run@{said["digest"]}"' in text


def test_after_a_build_the_lines_that_start_it_are_printed(project, offline):
    done = edgepack("build", *offline, cwd=project)
    lines = [line.strip() for line in done.stdout.splitlines() if " run --rm " in line]
    assert [line.split()[0] for line in lines] == ["docker", "podman"]
    assert all("load -i dist/wine-arm-none.oci.tar && " in line and line.endswith(" wine:arm-none") for line in lines)


LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
from edgepack.launch import edgepack
edgepack()
"""


def test_a_disk_that_takes_no_more_leaves_no_file_and_a_sound_cache(project, offline):
    """A limit on the size of files fails writes as a full disk does, half-way through a file."""
    environ = {**os.environ, "EDGEPACK_CACHE": str(project / "cache"), "UV_OFFLINE": "1"}
    command = [sys.executable, "-c", LIMITED, "build", *offline]
    done = subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith("note:")]) == 1
    assert not list(project.glob("dist/*"))
    assert pushed(project, *offline)["digest"]
