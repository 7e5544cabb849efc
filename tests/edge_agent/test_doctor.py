"""`edgepack-agent doctor`: what it finds on this very machine, and what it says where something is missing."""

from __future__ import annotations

import json

import pytest

from arch.finding import are_well
from arch.target import host_target
from edge_agent.config import Config, target_of
from edge_agent.doctor import check_up
from edgepack.errors import BadInput
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
