"""`edgepack doctor`: what a workstation has, and what would help where it lacks something."""

from __future__ import annotations

import json
import os

from arch.finding import Finding, are_well, examine
from buildx.workstation import look_around
from edgepack.errors import BadInput
from tests.buildx.parts import agent_wheels, make_mirror, make_wheel
from tests.buildx.simple_index import serving
from tests.commands.test_build import edgepack


def test_a_machine_with_mirror_and_index_is_well_without_docker(tmp_path):
    mirror = make_mirror(tmp_path / "mirror")
    make_wheel(agent_wheels(tmp_path / "wheels"), "click", "8.1.0")
    with serving(tmp_path / "wheels") as url:
        environ = {
            "EDGEPACK_DEBIAN_MIRROR": mirror.as_uri(),
            "UV_DEFAULT_INDEX": url,
            "UV_NO_CONFIG": "1",
            "UV_CACHE_DIR": str(tmp_path / "uv"),
            "PATH": "/nothing",
            "DOCKER_HOST": f"unix://{tmp_path}/none.sock",
            "HOME": str(tmp_path),
        }
        found = {each.key: each for each in look_around(tmp_path / "cache", environ, tmp_path / "no-apt")}
    assert are_well(found.values()), found
    assert found["package index"].passed and found["debian mirror"].passed and found["cache"].passed
    assert not found["docker engine"].passed and not found["docker engine"].needed
    assert not found["docker buildx"].passed


def test_what_is_missing_is_said_with_what_to_do(tmp_path):
    environ = {"UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_CACHE_DIR": str(tmp_path / "uv"), "PATH": os.environ["PATH"]}
    found = {each.key: each for each in look_around(tmp_path / "cache", environ, tmp_path / "no-apt")}
    assert not are_well(found.values())
    assert "EDGEPACK_DEBIAN_MIRROR" in found["debian mirror"].description
    assert found["package index"].description.startswith("no index of Python packages answers: set UV_DEFAULT_INDEX")
    assert "no mirror is known" in found["signatures"].description


def test_a_mirror_without_the_release_is_named(tmp_path):
    environ = {"EDGEPACK_DEBIAN_MIRROR": tmp_path.as_uri(), "UV_OFFLINE": "1", "PATH": os.environ["PATH"]}
    found = {each.key: each for each in look_around(tmp_path / "cache", environ, tmp_path / "no-apt")}
    assert "does not give release 'bookworm'" in found["debian mirror"].description


def test_the_command_prints_one_object_and_its_end_says_whether_all_is_well(tmp_path):
    done = edgepack("doctor", "--json", cwd=tmp_path)
    said = json.loads(done.stdout)
    assert {"machine", "cache", "package index", "debian mirror"} <= {each["key"] for each in said["checks"]}
    assert done.returncode == (0 if said["well"] else 1)


def test_a_finding_reads_as_one_line():
    def look() -> str:
        raise BadInput("nothing is here")

    assert str(examine("thing", lambda: "fine")) == "ok    thing             fine"
    assert str(examine("thing", look, "do this")) == "FAIL  thing             nothing is here: do this"
    assert str(Finding("thing", False, "away", needed=False)).startswith("--    thing")
