"""`edgepack build --base HOST/REPOSITORY:TAG`: with what the user is logged in with, and locked by digest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from oci.credentials import Basic
from oci.layout import Layout
from oci.registry import Registry
from oci.tar import Tar
from oci.validate import validate
from tests.buildx.parts import agent_wheels, make_base
from tests.commands.test_build import EXAMPLE, edgepack
from tests.oci.conftest import docker_registry, hub_registry


@pytest.fixture
def project(tmp_path) -> Path:
    (tmp_path / "wine.onnx").write_bytes((EXAMPLE / "wine-line.onnx").read_bytes())
    agent_wheels(tmp_path / "wheels")
    make_base(tmp_path / "base")
    return tmp_path


def build(project: Path, base: str, *flags: str, **environ: str):
    known = {"XDG_CONFIG_HOME": str(project / "config"), "DOCKER_CONFIG": str(project / "docker"), **environ}
    command = ["build", "wine.onnx", "--arch", "arm", "--base", base, "--wheels", "wheels", "-o", "out.tar", *flags]
    return edgepack(*command, cwd=project, **known)


def refusal(done) -> str:
    assert done.returncode == 2, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    return line


def publisher(host: str) -> Registry:
    return Registry(host, Basic("publisher", "correct horse"))


def test_a_base_at_a_hub_is_pulled_with_what_edgepack_login_keeps(project):
    with hub_registry(project / "hub") as hub:
        with hub.client() as client:
            client.push_index("plant/base", "1", Layout(project / "base").index())
        base = f"{hub.host}/plant/base:1"
        line = refusal(build(project, base))
        assert "refuses" in line and "credentials" in line
        logged_in = edgepack(
            *("login", "--hub", f"http://{hub.host}", "--token", hub.auth.token),
            cwd=project,
            XDG_CONFIG_HOME=str(project / "config"),
        )
        assert logged_in.returncode == 0, logged_in.stderr
        done = build(project, base, "--json")
        assert done.returncode == 0, done.stderr
        assert hub.auth.token not in done.stdout + done.stderr + (project / "edgepack.lock").read_text()
    assert validate(Tar(project / "out.tar")) == []
    image = next(each for each in Layout(project / "base").index().images if each.platform.architecture == "arm64")
    assert f'name = "{base}"\ndigest = "{image.digest}"' in (project / "edgepack.lock").read_text()


def test_a_base_in_a_guarded_registry_is_pulled_with_dockers_credential_helper_and_stays_locked(project):
    helper = project / "bin/docker-credential-plant"
    helper.parent.mkdir()
    helper.write_text('#!/bin/sh\necho \'{"Username": "publisher", "Secret": "correct horse"}\'\n')
    helper.chmod(0o755)
    (project / "docker").mkdir()
    (project / "guarded").mkdir()
    with docker_registry(project / "guarded", auth=True) as place:
        (project / "docker/config.json").write_text(json.dumps({"credHelpers": {place.host: "plant"}}))
        with publisher(place.host) as client:
            client.push_index("plant/base", "1", Layout(project / "base").index())
        base, path = f"{place.host}/plant/base:1", f"{helper.parent}:{os.environ['PATH']}"
        first = build(project, base, "--json", PATH=path)
        assert first.returncode == 0, first.stderr
        with publisher(place.host) as client:  # the tag moves on; the lock does not
            client.push_index("plant/base", "1", Layout(make_base(project / "newer", "usr/bin/python3.12")).index())
        again = build(project, base, "--json", "--locked", PATH=path)
        assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["digest"] == json.loads(first.stdout)["digest"]
    assert "correct horse" not in first.stdout + first.stderr


def test_a_registry_without_that_base_is_one_line(project):
    with docker_registry(project) as place:
        line = refusal(build(project, f"{place.host}/plant/nothing:1"))
    assert f"registry '{place.host}' has no 'plant/nothing" in line
    assert not (project / "out.tar").exists()
