"""What a machine says of itself, laid out in a folder as the kernel does."""

from __future__ import annotations

import pytest

from arch.facts import older, read_facts
from arch.nvidia import l4t_objection, read_nvidia

TEGRA = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8 2025\n"
DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"


def machine(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_an_x86_machine_says_its_name_flags_and_memory(tmp_path):
    root = machine(
        tmp_path,
        {
            "proc/cpuinfo": "processor : 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor : 1\n",
            "proc/meminfo": "MemTotal:       2048 kB\nMemFree: 1 kB\n",
        },
    )
    facts = read_facts(root)
    assert (facts.processor, facts.cpu_flags, facts.memory_bytes) == ("A CPU", ("avx2", "avx512_vnni"), 2 << 20)
    assert facts.nvidia is None
    assert facts.cpus >= 1


def test_a_containers_limit_is_its_memory(tmp_path):
    files = {"proc/meminfo": "MemTotal: 2048 kB\n", "sys/fs/cgroup/memory.max": "1000000\n"}
    assert read_facts(machine(tmp_path / "limited", files)).memory_bytes == 1_000_000
    files["sys/fs/cgroup/memory.max"] = "max\n"
    assert read_facts(machine(tmp_path / "free", files)).memory_bytes == 2 << 20


def test_an_arm_board_says_its_name_in_the_device_tree(tmp_path):
    files = {"proc/cpuinfo": "Features : fp asimd asimddp\n", "proc/device-tree/model": "Board 4\0"}
    facts = read_facts(machine(tmp_path, files))
    assert (facts.processor, facts.cpu_flags) == ("Board 4", ("asimd", "asimddp"))


def test_a_machine_that_says_nothing_is_no_fault(tmp_path):
    facts = read_facts(tmp_path)
    assert (facts.processor, facts.cpu_flags, facts.memory_bytes) == ("unknown", (), None)


def test_this_machine_has_a_c_library_and_memory():
    facts = read_facts()
    assert facts.memory_bytes and facts.memory_bytes > 1 << 28
    assert facts.glibc is None or not older(facts.glibc, "2.17")


def test_a_card_with_its_driver_is_seen(tmp_path):
    root = machine(tmp_path, {"dev/nvidia0": "", "dev/nvidiactl": "", "proc/driver/nvidia/version": DRIVER})
    found = read_nvidia(root)
    assert found is not None
    assert (found.devices, found.driver, found.l4t, found.jetpack) == (("nvidia0",), "580.95.05", None, None)


@pytest.mark.parametrize(
    ("text", "l4t", "jetpack"), [(TEGRA, "36.4.3", "6"), (TEGRA.replace("R36", "R35"), "35.4.3", "5")]
)
def test_a_jetson_says_its_release(tmp_path, text, l4t, jetpack):
    found = read_nvidia(machine(tmp_path, {"dev/nvhost-gpu": "", "etc/nv_tegra_release": text}))
    assert found is not None
    assert (found.devices, found.l4t, found.jetpack) == (("nvhost-gpu",), l4t, jetpack)


@pytest.mark.parametrize(
    ("image", "host", "reason"),
    [
        ("36.4", "36.4.3", None),
        ("36.5", "36.4.3", None),
        ("36.3", "36.2", None),
        ("36", "36.4.3", None),
        ("38.2", "38.4", None),
        ("36.4", "36.3", "from 36.4 do not mix"),
        ("36.3", "36.4.3", "from 36.4 do not mix"),
        ("36.4", "38.2", "on the base of this host's JetPack"),
        ("36.4", None, "does not say that it is a Jetson"),
    ],
)
def test_releases_of_image_and_host_must_go_together(image, host, reason):
    found = l4t_objection(image, host)
    assert found is None if reason is None else reason in str(found)


def test_versions_compare_by_numbers():
    assert older("2.4", "2.36") and older("12.9", "13") and not older("2.36", "2.36")
