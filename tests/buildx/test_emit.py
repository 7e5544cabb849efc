"""The files that start an image, read by the tools that will read them: docker compose, podman's quadlet, Kubernetes'
own schemas. They are unpacked or installed apart, once; where that cannot be, the reason is printed.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from arch.target import Target
from buildx.emit import FORMATS, Service, run_lines, service_of
from buildx.emit.yaml import yaml_text
from bundle.pipeline import LogPolicy, PipelineSpec, Resources, StepSpec
from edgepack.errors import BadInput
from oci.blob import BytesBlob
from oci.image import IMAGE_CONFIG, Image
from tests.images.pins import COMPOSE, QUADLET, Missing, unpacked

FIELD = {"x": "list<float32>[2]"}
STEP = StepSpec(name="s", model="m.onnx", framework="onnx", runtime="onnx", input=FIELD, output=FIELD)
HEALTH = ["/usr/bin/python3.11", "-c", "s.sendall(b'GET /healthz\\r\\n');x='100% $HOME \"q\"'"]
IMAGE = Image(
    BytesBlob.of(json.dumps({"config": {"Healthcheck": {"Test": ["CMD", *HEALTH]}}}).encode(), IMAGE_CONFIG), ()
)
FLAGS = {"x86/none": (), "x86/cuda": ("--gpus", "all"), "arm/jetson": ("--runtime", "nvidia")}
KUBERNETES = "1.31"


def service(target: str = "x86/none", *, pulled: bool = True, name: str = "wine-line", **resources) -> Service:
    spec = PipelineSpec(name, [STEP], log=LogPolicy(max_bytes="2Gi"), resources=Resources(**resources))
    image = f"registry.example:5000/plant/{name}@sha256:{'a' * 64}" if pulled else f"{name}:x86-none"
    return service_of(IMAGE, spec, Target.read(target), FLAGS[target], image, pulled=pulled)


def written(kind: str, folder: Path, made: Service) -> Path:
    suffix, write = FORMATS[kind]
    path = folder / f"wine{suffix}"
    path.write_text(write(made))
    return path


@pytest.fixture(scope="session")
def compose() -> str:
    try:
        return str(unpacked(COMPOSE) / "usr/libexec/docker/cli-plugins/docker-compose")
    except Missing as error:
        pytest.skip(f"no docker compose: {error}")


@pytest.fixture(scope="session")
def quadlet() -> str:
    try:
        return str(unpacked(QUADLET) / "usr/libexec/podman/quadlet")
    except Missing as error:
        pytest.skip(f"no quadlet: {error}")


@pytest.fixture(scope="session")
def kubernetes_validate() -> str:
    """A validator with Kubernetes' schemas, in an environment of its own that is kept."""
    folder = platformdirs.user_cache_path("edgepack") / "tests" / "kubernetes-validate"
    program = folder / "bin/kubernetes-validate"
    uv = [str(Path(sys.executable).with_name("uv")), "-q"]
    if not program.is_file():
        for command in (
            [*uv, "venv", "--clear", str(folder)],
            [*uv, "pip", "install", "--python", str(folder), "kubernetes-validate"],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"kubernetes-validate cannot be installed: {done.stderr.strip()[-200:]}")
    return str(program)


@pytest.mark.parametrize("target", list(FLAGS))
@pytest.mark.parametrize("pulled", [True, False], ids=["from a registry", "loaded here"])
def test_docker_compose_reads_the_file_as_it_is_meant(compose, tmp_path, target, pulled):
    made = service(target, pulled=pulled, cpus=1.5, memory="300Mi")
    path = written("compose", tmp_path, made)
    command = [compose, "-f", str(path), "config", "--format", "json"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "EDGEPACK_HUB": "https://hub.example"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    read = json.loads(done.stdout)["services"]["wine-line"]
    assert (read["image"], read["read_only"], read["cap_drop"]) == (made.image, True, ["ALL"])
    assert read["platform"] == str(made.target.platform)
    # compose prints two signs for one, as it reads them
    assert [word.replace("$$", "$") for word in read["healthcheck"]["test"]] == ["CMD", *HEALTH]
    resources = read["deploy"]["resources"]
    assert (float(resources["limits"]["cpus"]), resources["limits"]["memory"]) == (1.5, str(300 << 20))
    assert read["volumes"][0]["target"] == "/persist"
    assert read["environment"] == {
        "EDGEPACK_HUB": "https://hub.example",
        "EDGEPACK_JOIN_TOKEN": "",
        "EDGEPACK_NAME": "",
    }
    assert read["logging"]["options"] == {"max-file": "3", "max-size": "10m"}, "a device's disk does not fill up"
    assert read.get("runtime") == ("nvidia" if target == "arm/jetson" else None)
    cards = resources.get("reservations", {}).get("devices", [])
    assert [card["capabilities"] for card in cards] == ([["gpu"]] if target == "x86/cuda" else [])


@pytest.mark.parametrize("target", list(FLAGS))
@pytest.mark.parametrize("pulled", [True, False], ids=["from a registry", "loaded here"])
def test_quadlet_makes_a_unit_of_the_file(quadlet, tmp_path, target, pulled):
    written("quadlet", tmp_path, service(target, pulled=pulled, cpus=1.5, memory="300Mi"))
    environ = {"QUADLET_UNIT_DIRS": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run([quadlet, "-dryrun"], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "wine.service" in done.stdout
    assert not [line for line in done.stderr.splitlines() if "unsupported" in line or "not a fully qualified" in line]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ExecStart=")]
    words = [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line.partition("=")[2])]
    assert {"--read-only", "--security-opt=no-new-privileges"} <= set(words)
    assert words[words.index("--cap-drop") + 1] == "all"
    assert json.loads(words[words.index("--health-cmd") + 1]) == ["CMD", *HEALTH]
    assert {"--cpus=1.5", "--memory=300m", "--env=EDGEPACK_HUB", "--env=EDGEPACK_JOIN_TOKEN"} <= set(words)
    assert words[words.index("--health-on-failure") + 1] == "kill"
    assert {"StartLimitIntervalSec=0", "EnvironmentFile=-/etc/edgepack/wine-line.env"} <= set(done.stdout.splitlines())
    assert ("nvidia.com/gpu=all" in line) == (target != "x86/none")


def test_the_unit_is_one_for_systemd_too(quadlet, tmp_path):
    written("quadlet", tmp_path, service())
    environ = {"QUADLET_UNIT_DIRS": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([quadlet, str(tmp_path / "units")], env=environ, check=True, capture_output=True)
    unit = tmp_path / "units/wine.service"
    # the program lies elsewhere on this machine: that alone is not what is asked here
    unit.write_text(unit.read_text().replace("/usr/bin/podman", "/bin/true"))
    try:
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    assert [line for line in done.stderr.splitlines() if "wine.service" in line] == []


@pytest.mark.parametrize("target", list(FLAGS))
def test_kubernetes_schemas_take_the_manifests(kubernetes_validate, tmp_path, target):
    path = written("k8s", tmp_path, service(target, cpus=0.5, replicas=3, gpus=2 if target == "x86/cuda" else 0))
    command = [kubernetes_validate, "--strict", "-k", KUBERNETES, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    network, workload = yaml.safe_load_all(path.read_text())
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert workload["spec"]["replicas"] == 1
    assert network["spec"]["selector"] == workload["spec"]["selector"]["matchLabels"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["cpu"] == "0.5"
    assert container["envFrom"] == [{"secretRef": {"name": "wine-line-hub", "optional": True}}]
    assert container["resources"]["limits"].get("nvidia.com/gpu") == {"x86/cuda": "2", "arm/jetson": "1"}.get(target)
    assert pod["nodeSelector"]["kubernetes.io/arch"] == ("arm64" if target == "arm/jetson" else "amd64")
    assert workload["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] == "3072Mi"


def test_a_long_name_leaves_room_for_what_kubernetes_adds(tmp_path):
    path = written("k8s", tmp_path, service(name="a" * 51 + "-" + "b" * 11))
    assert yaml.safe_load(path.read_text().split("---\n")[1])["metadata"]["name"] == "a" * 51


def test_the_printed_lines_start_a_hardened_container_with_the_accelerator():
    docker, podman = run_lines(service("x86/cuda", pulled=False), Path("dist/a b.tar"))
    assert docker.startswith("docker load -i 'dist/a b.tar' && docker run --rm ")
    assert "--gpus all" in docker and "--device nvidia.com/gpu=all" in podman
    for line in (docker, podman):
        assert "--read-only" in line and "--cap-drop ALL" in line and line.endswith(" wine-line:x86-none")
    assert "--runtime nvidia" in run_lines(service("arm/jetson"), None)[0]
    assert not run_lines(service(), Path("x.tar"))[0].startswith("docker load"), "a registry has it"


@pytest.mark.parametrize("flags", [("--privileged",), ("--network", "host"), ("--gpus",)])
def test_a_flag_of_a_target_file_that_means_nothing_elsewhere_is_refused(flags):
    with pytest.raises(BadInput, match=r"the run flags of target x86/none are .*mend the target's file"):
        service_of(IMAGE, PipelineSpec("x", [STEP]), Target("x86"), flags, "x:1", pulled=False)


def test_a_device_file_reaches_compose_and_quadlet_and_is_refused_for_kubernetes():
    made = service_of(IMAGE, PipelineSpec("x", [STEP]), Target("x86"), ("--device=/dev/dri",), "x:1", pulled=False)
    assert "/dev/dri:/dev/dri" in FORMATS["compose"][1](made)
    assert "AddDevice=/dev/dri" in FORMATS["quadlet"][1](made)
    with pytest.raises(BadInput, match="device plugin"):
        FORMATS["k8s"][1](made)


_VALUES = st.recursive(
    st.text() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), _VALUES, max_size=4))
def test_every_value_reads_back_from_yaml_as_it_was(value):
    try:
        json.dumps(value).encode()
    except UnicodeEncodeError:
        return
    assert yaml.safe_load(yaml_text(value)) == (value or None)
