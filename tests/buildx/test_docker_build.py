"""What the docker buildx builder writes and says, without an engine; tests/images has the same with a real one."""

from __future__ import annotations

import gc
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from arch.target import Target
from buildx import Options, Quiet, Workplace, build
from buildx.docker_build import Parts, write_context
from buildx.docker_cli import DockerCli
from buildx.dockerfile import config_lines
from buildx.engine import Engine
from buildx.entries import complete
from buildx.image import Foundation
from buildx.layer_cache import LayerCache
from buildx.layers import LayerMaker, WheelGroup
from buildx.lock import LockedWheel
from buildx.splice import Stored
from buildx.wheel_files import Place, wheel_entries
from edgepack.errors import BadInput, BuildFailed
from oci.layout import Layout
from tests.buildx.parts import agent_wheels, make_base, make_bundle, make_wheel

CONFIG = {
    "User": "65532:65532",
    "ExposedPorts": {"8080/tcp": {}},
    "Env": ['ODD=a "b" $c \\d', "PATH=/usr/bin"],
    "Entrypoint": ["/usr/bin/python3.11", "/usr/local/bin/edgepack-agent"],
    "Cmd": ["run"],
    "Volumes": {"/persist": {}},
    "Labels": {"io.edgepack.target": "arm/none"},
    "StopSignal": "SIGTERM",
    "Healthcheck": {"Test": ["CMD", "x"], "Interval": 30 * 10**9, "Timeout": 5 * 10**9, "StartPeriod": 30 * 10**9},
}


def foundation(folder: Path, number: int) -> Foundation:
    image = Layout(make_base(folder)).index().images[number]
    place = Place("/usr/bin/python3.11", "usr/local/lib/python3.11/dist-packages")
    return Foundation("base", tuple((layer, "") for layer in image.layers), place, (True,) * len(image.layers))


@pytest.fixture
def context(tmp_path) -> Path:
    wheel = make_wheel(tmp_path / "wheels", "tiny", "1.0", {"tiny/__init__.py": b"x = 1\n", "tiny/tests/t.py": b""})
    locked = LockedWheel("tiny", "1.0", wheel.name, "0" * 64, wheel.stat().st_size)
    groups = [WheelGroup("wheels", "1 packages", (locked,), (wheel,))]
    with LayerCache.opened(tmp_path / "cache") as cache:
        bundle_layer = LayerMaker(cache, Stored(), None).bundle(make_bundle(tmp_path / "project"))
        base = foundation(tmp_path / "base", 1)
        parts = Parts(base, foundation(tmp_path / "host", 0), groups, [bundle_layer], bytecode=True)
        folder = tmp_path / "context"
        folder.mkdir()
        write_context(folder, parts, CONFIG)
    return folder


def test_nothing_of_the_target_is_run_and_no_registry_is_asked(context):
    lines = (context / "Dockerfile").read_text().splitlines()
    stages = [line for line in lines if line.startswith("FROM ")]
    assert stages[0] == "FROM --platform=$BUILDPLATFORM scratch AS workshop"
    assert all(line.startswith("FROM workshop AS ") for line in stages[1:-1])
    final = lines[len(lines) - lines[::-1].index("FROM scratch") :]
    assert [line for line in final if line.startswith("RUN")] == []
    assert not any(line.startswith("#") for line in lines), "a syntax line would fetch a parser"


def test_all_that_the_dockerfile_names_lies_in_the_context(context):
    lines = (context / "Dockerfile").read_text().splitlines()
    named = [line.split()[1] for line in lines if line.startswith("ADD ")]
    named += [line.partition("source=")[2].partition(",")[0] for line in lines if "source=" in line]
    assert len(named) == 5
    assert all((context / name).exists() for name in named)


def test_the_recipe_gives_the_direct_builders_files_with_nothing_but_the_standard_library(context, tmp_path):
    site = "usr/local/lib/python3.11/dist-packages"
    command = [
        sys.executable,
        "-S",
        "-s",
        "-m",
        "buildx.workshop",
        context / "wheels-0",
        tmp_path / "out",
        site,
        "plain",
    ]
    environ = {"PYTHONPATH": str(context / "recipe"), "PATH": os.environ["PATH"]}
    subprocess.run(command, env=environ, cwd=tmp_path, check=True)
    wheel = next((context / "wheels-0").iterdir())
    expected = {each.path: each for each in complete(wheel_entries(wheel, Place("/usr/bin/python3.11", site)))}
    made = {str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*")}
    assert set(made) == set(expected)
    assert not any("tests" in path for path in made), "the same rules leave the same out"
    for path, entry in expected.items():
        assert stat.S_IMODE(made[path].stat().st_mode) == entry.mode
        assert entry.kind == "folder" or made[path].read_bytes() == b"".join(entry.source.chunks())


def test_bytecode_is_made_in_the_workshop_and_never_checked_against_its_source(context, tmp_path):
    command = [
        sys.executable,
        "-S",
        "-s",
        "-m",
        "buildx.workshop",
        context / "wheels-0",
        tmp_path / "out",
        "x",
        "bytecode",
    ]
    environ = {"PYTHONPATH": str(context / "recipe"), "PATH": os.environ["PATH"]}
    subprocess.run(command, env=environ, cwd=tmp_path, check=True)
    made = tmp_path / f"out/x/tiny/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    assert made.read_bytes()[4:8] == b"\x01\x00\x00\x00"  # PEP 552


def test_on_a_base_of_the_users_own_nothing_is_run_so_no_base_for_this_machine_is_asked_for(tmp_path):
    with LayerCache.opened(tmp_path / "cache") as cache:
        maker = LayerMaker(cache, Stored(), None)
        base = foundation(tmp_path / "base", 1)
        layers = [maker.agent(base.place), maker.bundle(make_bundle(tmp_path / "project"))]
        folder = tmp_path / "context"
        folder.mkdir()
        write_context(folder, Parts(base, None, [], layers, bytecode=False), CONFIG)
    lines = (folder / "Dockerfile").read_text().split("\n")
    assert [line for line in lines if line.startswith(("FROM", "RUN", "ADD", "COPY"))] == [
        "FROM scratch",
        "ADD base-0.tar /",
        "ADD layer-0.tar.gz /",
        "ADD layer-1.tar.gz /",
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        "Dockerfile",
        "base-0.tar",
        "layer-0.tar.gz",
        "layer-1.tar.gz",
    ]


def test_a_setting_reaches_the_image_as_it_is_written():
    lines = list(config_lines(CONFIG))
    assert 'ENV ODD="a \\"b\\" \\$c \\\\d"' in lines
    assert 'HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["x"]' in lines
    with pytest.raises(BadInput, match="line break"):
        list(config_lines({**CONFIG, "Env": ["A=b\nRUN evil"]}))


FAKE = """#!/bin/sh
# a docker whose plugin is broken in the way that each test needs
[ "$2" = "$FAILS" ] && { echo "#1 [internal] load"; echo "ERROR: $WORDS"; exit 1; } >&2
[ "$2" = inspect ] && echo "Driver: docker"
exit 0
"""


def cli(folder: Path, fails: str, words: str = "it is broken") -> DockerCli:
    (folder / "docker").write_text(FAKE)
    (folder / "docker").chmod(0o755)
    environ = {"PATH": f"{folder}:/usr/bin:/bin", "FAILS": fails, "WORDS": words}
    return DockerCli.find(environ, shown=False)


def test_the_missing_piece_is_named_with_the_way_round(tmp_path):
    with pytest.raises(BadInput, match=r"^the program 'docker' is not installed: use --builder direct"):
        DockerCli.find({"PATH": str(tmp_path)}, shown=False)
    with pytest.raises(BadInput, match=r"^docker buildx is not installed: use --builder direct, or install the buildx"):
        cli(tmp_path, "version")
    with pytest.raises(BadInput, match=r"no builder that answers: it is broken; use --builder direct"):
        cli(tmp_path, "inspect")
    assert cli(tmp_path, "nothing").driver == "docker"


def test_a_build_that_fails_says_the_builders_last_error_in_one_line(tmp_path):
    with pytest.raises(BuildFailed, match=r"^docker buildx build ended with 1: no space left on device$"):
        cli(tmp_path, "build", "no space left on device").build(tmp_path, "linux/arm64", [], 0)


# the package leaves the socket of a failed try to the garbage collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("host", ["unix:///nothing/here", "tcp://127.0.0.1:1"])
def test_an_engine_that_is_not_there_is_named_with_what_to_do(host):
    with pytest.raises(BadInput, match=rf"^no docker engine answers at '{host}': [^\n]+; start one or set DOCKER_HOST"):
        Engine.connect({"DOCKER_HOST": host}, timeout_s=5)
    gc.collect()


def test_without_the_package_docker_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(BadInput, match=r"pip install 'edgepack\[docker\]'"):
        Engine.connect({})


def test_a_compression_that_docker_would_not_use_is_refused(tmp_path):
    bundle, base = make_bundle(tmp_path / "project"), make_base(tmp_path / "base")
    options = Options(tmp_path, tmp_path, tmp_path / "out.tar", str(base), compression="zstd", builder="buildx")
    with pytest.raises(BadInput, match=r"^--compression zstd is the direct builder's: docker packs layers in its own"):
        build(bundle, [Target("x86")], options, Workplace(tmp_path / "cache", {}, tmp_path / "no-apt"), Quiet())


def test_a_build_without_docker_leaves_nothing(tmp_path):
    bundle, base = make_bundle(tmp_path / "project"), make_base(tmp_path / "base")
    options = Options(
        tmp_path / "project",
        tmp_path / "project",
        tmp_path / "out.tar",
        str(base),
        agent_wheels(tmp_path / "w"),
        builder="buildx",
    )
    workplace = Workplace(tmp_path / "cache", {"PATH": str(tmp_path)}, tmp_path / "no-apt")
    with pytest.raises(BadInput, match="'docker' is not installed"):
        build(bundle, [Target("x86")], options, workplace, Quiet())
    assert not (tmp_path / "out.tar").exists()
    assert list((tmp_path / "cache").glob(".build-*")) == []
