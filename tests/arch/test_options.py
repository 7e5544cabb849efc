"""What providers are told: data of a target, handed to the agent of its image in one variable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arch.options import VARIABLE, Options
from arch.providers import CPU, CUDA, OPENVINO, TENSORRT
from arch.target import Target, every_target
from arch.traits import read_traits, traits_of
from edgepack.errors import BadInput

JETSON = traits_of(Target("arm", "jetson"))


@pytest.mark.parametrize("target", every_target(), ids=str)
def test_what_an_image_says_reads_as_what_its_target_file_has(target):
    options = Options.of_target(traits_of(target))
    assert Options.read({VARIABLE: options.said()}) == options
    assert set(options.options) <= set(traits_of(target).providers)


def test_every_provider_of_ours_that_rounds_by_itself_is_told_to_compute_in_32_bits():
    ours = Options.read({})
    assert ours.to(CUDA, 1, None)["use_tf32"] == "0"
    assert ours.to(OPENVINO, 1, None)["precision"] == "FP32"
    assert ours.to(TENSORRT, 1, None)["trt_fp16_enable"] == "False"
    assert ours.to(CPU, 1, None) == {}


def test_threads_and_the_folder_for_what_is_compiled_are_filled_in():
    assert Options.read({}).to(OPENVINO, 3, None)["num_of_threads"] == "3"
    told = Options.of_target(JETSON).to(TENSORRT, 3, Path("/persist/compiled/a"))
    assert told["trt_engine_cache_path"] == told["trt_timing_cache_path"] == "/persist/compiled/a"
    assert told["trt_engine_cache_enable"] == "True"


def test_without_a_folder_nothing_is_told_of_keeping():
    assert Options.of_target(JETSON).to(TENSORRT, 3, None) == {"trt_fp16_enable": "False"}


def test_options_of_a_provider_that_the_target_does_not_use_are_left_out():
    traits = replace(JETSON, providers=(CUDA, CPU))
    assert Options.of_target(traits).options == {CUDA: {"use_tf32": "0"}} and not Options.of_target(traits).cache


def test_a_target_file_of_the_users_own_changes_them(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'target = "x86/igpu"\nlike = "x86/openvino"\n[options.OpenVINOExecutionProvider]\ndevice_type = "GPU"\n'
        '[cache.OpenVINOExecutionProvider]\ncache_dir = "{cache}"\n'
    )
    openvino = traits_of(Target("x86", "openvino"))
    told = Options.of_target(read_traits(path, {openvino.target: openvino}))
    assert told.to(OPENVINO, 2, None) == {"device_type": "GPU"}
    assert told.to(OPENVINO, 2, Path("/c")) == {"device_type": "GPU", "cache_dir": "/c"}


@pytest.mark.parametrize("text", ["{", "[]", '{"options": {"X": {"a": 1}}}', '{"more": {}}'])
def test_a_variable_that_does_not_read_is_one_line(text):
    with pytest.raises(BadInput, match=f"^{VARIABLE} does not read: ") as raised:
        Options.read({VARIABLE: text})
    assert "\n" not in str(raised.value)
