"""`edgepack-agent doctor`: what it finds on this very machine, and what it says where something is missing."""

from __future__ import annotations

import dataclasses
import json

import pytest

from arch.facts import read_facts
from arch.finding import are_well
from arch.target import host_target
from edge_agent.commands.doctor import told
from edge_agent.config import Config, target_of
from edge_agent.doctor import check_up
from edgepack.errors import BadInput
from tests.arch.test_facts import DRIVER, TEGRA, machine
from tests.edge_agent.test_agent_commands import call


def by_key(found):
    return {each.key: each for each in found.findings}


def test_this_machine_is_well(tmp_path):
    found = check_up(Config(tmp_path / "data"), {})
    assert are_well(found.findings), found.findings
    assert {"glibc", "data folder", "room", "sync latency", "clock", "provider"} <= set(by_key(found))
    assert found.sync and found.sync.median_ms > 0
    assert list(tmp_path.iterdir()) == []


def test_a_provider_that_is_not_here_is_named_with_the_reason(tmp_path):
    found = check_up(Config(tmp_path), {"EDGEPACK_PROVIDERS": "CUDAExecutionProvider,CPUExecutionProvider"})
    assert not are_well(found.findings)
    (failed,) = (each for each in found.findings if not each.passed)
    assert failed.description.startswith("CUDAExecutionProvider is not used: ")


def test_an_image_for_a_jetson_says_so_elsewhere(tmp_path):
    found = by_key(check_up(Config(tmp_path), {"EDGEPACK_L4T": "36.4"}))
    assert "the image is for L4T 36.4" in found["l4t"].description and not found["l4t"].passed


JETSON = {
    "proc/cpuinfo": "Features : fp asimd asimdhp asimddp\n",
    "proc/meminfo": "MemTotal: 7802884 kB\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano\0",
    "dev/nvhost-gpu": "",
    "dev/nvmap": "",
    "etc/nv_tegra_release": TEGRA,
}
CARD = {"dev/nvidia0": "", "dev/nvidia1": "", "proc/driver/nvidia/version": DRIVER}
ASKED = {"EDGEPACK_PROVIDERS": "CUDAExecutionProvider,CPUExecutionProvider"}


def examined(tmp_path, files, environ, **changes):
    """What doctor finds on a machine that is laid out in a folder."""
    facts = dataclasses.replace(read_facts(machine(tmp_path / "root", files)), glibc="2.35")
    if facts.nvidia and changes:
        facts = dataclasses.replace(facts, nvidia=dataclasses.replace(facts.nvidia, **changes))
    return check_up(Config(tmp_path / "data"), environ, facts=facts)


def test_a_jetson_is_described_and_goes_with_its_image(tmp_path):
    found = examined(tmp_path, JETSON, {"EDGEPACK_L4T": "36.4"})
    assert by_key(found)["jetpack"].description == "6 (L4T 36.4.3)" and by_key(found)["jetpack"].passed
    assert by_key(found)["l4t"].passed and by_key(found)["provider"].passed
    assert "nvidia      nvhost-gpu, nvmap, driver not seen" in told(found)
    assert "NVIDIA Jetson Orin Nano" in told(found) and "(asimd asimdhp asimddp)" in told(found)
    said = found.to_dict()["facts"]
    assert (said["jetpack"], said["nvidia"]["l4t"]) == ("6", "36.4.3")


def test_a_jetson_with_jetpack_5_is_told_why_nothing_runs_there(tmp_path):
    files = {**JETSON, "etc/nv_tegra_release": TEGRA.replace("R36", "R35")}
    found = by_key(examined(tmp_path, files, {"EDGEPACK_L4T": "36.4"}))
    assert "L4T 35.4.3 is JetPack 5: images are built for JetPack 6 and 7" in found["jetpack"].description
    assert "build it on the base of this host's JetPack" in found["l4t"].description
    assert not are_well(found.values())


def test_a_card_is_described_with_its_driver_and_the_cuda_that_it_speaks(tmp_path):
    found = examined(tmp_path, CARD, ASKED, cuda="12.8")
    assert "nvidia      nvidia0, nvidia1, driver 580.95.05, CUDA up to 12.8" in told(found)
    (skipped,) = [each for each in found.findings if not each.passed]
    assert skipped.description == "CUDAExecutionProvider is not used: this onnxruntime was built without it"


def test_a_full_disk_and_a_clock_that_was_never_set_are_said(tmp_path):
    found = check_up(Config(tmp_path, reserve_bytes=1 << 60), {}, now_s=86_400.0)
    assert "no bundle can come; make room" in by_key(found)["room"].description
    assert "1970-01-02" in by_key(found)["clock"].description
    assert not by_key(found)["clock"].needed


def test_the_target_is_that_of_the_image_and_must_be_of_this_architecture(tmp_path):
    here = host_target()
    assert str(target_of(Config(tmp_path, target=f"{here.arch}/mine"))) == f"{here.arch}/mine"
    other = "arm" if here.arch == "x86" else "x86"
    with pytest.raises(BadInput, match=f"EDGEPACK_TARGET is '{other}/none', this machine is {here.arch}"):
        target_of(Config(tmp_path, target=other))


def test_the_command_prints_one_object_and_ends_with_what_it_found(tmp_path):
    done = call("doctor", "--data", tmp_path, "--json")
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout)
    assert set(said) == {"target", "facts", "disk", "sync", "checks"}
    assert said["facts"]["memory_bytes"] > 0
    done = call("doctor", "--data", tmp_path, EDGEPACK_PROVIDERS="CUDAExecutionProvider")
    assert done.returncode == 1
    assert "FAIL  provider" in done.stdout
