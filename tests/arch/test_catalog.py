"""Targets as data: those that edgepack brings, those that it refuses, and the user's own."""

from __future__ import annotations

import pytest

from arch import Catalog, Target, every_target, plain_targets, traits_of
from arch.catalog import without_base
from arch.target import REFUSED
from edgepack.errors import BadInput


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_every_legal_pair_has_a_row_that_says_all():
    assert {str(target) for target in every_target()} == {
        *("x86/none", "x86/cuda", "x86/openvino", "arm/none", "arm/cuda", "arm/jetson", "arm/aio")
    }
    for target in every_target():
        traits = traits_of(target)
        assert traits.target == target
        assert traits.providers[-1] == "CPUExecutionProvider"
        assert traits.wheel_platform == f"{traits.machine}-manylinux_{traits.glibc.replace('.', '_')}"
        assert traits.status
    assert [str(target) for target in plain_targets()] == ["x86/none", "arm/none"]


@pytest.mark.parametrize(
    "pair", ["x86/jetson", "x86/aio", "arm/openvino", "mips", "arm/tpu", "", "x86/", "x86/none/more"]
)
def test_a_pair_that_does_not_exist_is_refused_with_those_that_do(pair):
    with pytest.raises(BadInput, match=r"does not exist: choose one of x86/none, .*arm/jetson, arm/aio"):
        Target.parse(pair)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_the_trade_knows_and_we_do_not_build_is_refused_with_the_reason(name):
    for text in (name, f"x86/{name}"):
        with pytest.raises(BadInput, match="is not supported: ") as caught:
            Target.parse(text)
        assert REFUSED[name] in str(caught.value)


def test_the_accelerator_of_another_machines_target_file_is_read_but_not_chosen():
    assert str(Target.read("arm/orin-nano")) == "arm/orin-nano"
    for text in ("arm/Orin", "arm/", "mips/none", "arm/a b", "arm/" + "a" * 40):
        with pytest.raises(BadInput, match="is not a target"):
            Target.read(text)
    with pytest.raises(BadInput, match="does not exist"):
        Target.parse("arm/orin-nano")


def test_a_file_of_the_users_own_changes_a_target_and_keeps_the_rest(tmp_path):
    folder = write(tmp_path / "t", "jetson.toml", 'target = "arm/jetson"\nbase = "registry.example:5000/l4t:36.4"\n')
    traits = Catalog.read([folder]).traits(Target("arm", "jetson"))
    assert traits.base == "registry.example:5000/l4t:36.4"
    assert traits.providers == traits_of(Target("arm", "jetson")).providers
    assert traits.status == "not tested on hardware"


def test_a_file_of_the_users_own_adds_a_target_that_is_like_another(tmp_path):
    text = 'target = "arm/orin"\nlike = "arm/jetson"\nindexes = ["https://wheels.example/jp6"]\n'
    text += '[labels]\n"io.edgepack.l4t" = "36.4"\n'
    catalog = Catalog.read([write(tmp_path / "t", "orin.toml", text)])
    traits = catalog.traits(catalog.parse("arm/orin"))
    assert (traits.indexes, traits.labels) == (("https://wheels.example/jp6",), {"io.edgepack.l4t": "36.4"})
    assert traits.run == ("--runtime", "nvidia")
    assert str(catalog.targets[-1]) == "arm/orin"
    with pytest.raises(BadInput, match="arm/aio, arm/orin"):
        catalog.parse("arm/tpu")


def test_a_new_target_that_is_like_none_is_like_the_plain_one_and_counts_as_untested(tmp_path):
    traits = Catalog.read([write(tmp_path / "t", "x.toml", 'target = "x86/npu"\n')]).traits(Target("x86", "npu"))
    assert (traits.base, traits.python, traits.status) == ("debian bookworm", "3.11", "not tested on hardware")


def test_the_projects_file_wins_over_the_users(tmp_path):
    mine = write(tmp_path / "mine", "a.toml", 'target = "arm/aio"\nbase = "host.example/mine:1"\n')
    theirs = write(tmp_path / "project", "a.toml", 'target = "arm/aio"\nbase = "host.example/project:1"\n')
    assert Catalog.read([mine, theirs]).traits(Target("arm", "aio")).base == "host.example/project:1"


def test_a_base_that_lies_beside_the_file_is_found_from_anywhere(tmp_path):
    folder = write(tmp_path / "t", "a.toml", 'target = "arm/aio"\nbase = "layout"\n')
    (folder / "layout").mkdir()
    assert Catalog.read([folder]).traits(Target("arm", "aio")).base == str(folder / "layout")


def test_the_environment_names_a_base(tmp_path):
    catalog = Catalog.read([], {"EDGEPACK_BASE_ARM_JETSON": "host.example/l4t:1"})
    assert catalog.traits(Target("arm", "jetson")).base == "host.example/l4t:1"
    assert catalog.traits(Target("arm", "aio")).base is None


def test_the_environment_may_name_one_base_for_all_targets():
    catalog = Catalog.read([], {"EDGEPACK_BASE": "layout", "EDGEPACK_BASE_ARM_JETSON": "host.example/l4t:1"})
    assert catalog.traits(Target("x86")).base == "layout"
    assert not catalog.traits(Target("x86")).is_own_base
    assert catalog.traits(Target("arm", "jetson")).base == "host.example/l4t:1"


def test_without_a_base_the_line_to_add_is_said():
    said = str(without_base(Target("arm", "jetson")))
    assert "--base" in said and "EDGEPACK_BASE_ARM_JETSON" in said
    assert 'base = "host/repository:tag"' in said and "targets/arm-jetson.toml" in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("target = 1", "Expected `str`"),
        ('target = "mips/none"', "is not a target"),
        ('target = "arm/aio"\nbases = "x"', "unknown field `bases`"),
        ('target = "arm/aio"\nbase = "debian sid"', "is not one that edgepack makes"),
        ('target = "arm/aio"\nsite = "/opt"', "without a slash in front"),
        ('target = "arm/aio"\nsite = "opt/../.."', "without a slash in front"),
        ('target = "arm/aio"\nproviders = ["X"]', "must end with CPUExecutionProvider"),
        ('target = "x86/big"\nlike = "x86/big"', "like 'x86/big' is no target: choose one of x86/none, x86/cuda"),
        ("target = ", "does not read"),
    ],
)
def test_a_file_that_does_not_read_is_named_with_the_reason(tmp_path, text, reason):
    with pytest.raises(BadInput, match=r"target file 'bad.toml' does not read: ") as caught:
        Catalog.read([write(tmp_path / "t", "bad.toml", text)])
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
