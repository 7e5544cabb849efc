from __future__ import annotations

import os

import pytest

from runtimes.cpus import usable_cpus

AFFINITY = len(os.sched_getaffinity(0))


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "self"
    path.write_text("0::/a/b\n")
    return path


def test_without_a_quota_the_affinity_mask_decides(tmp_path, own):
    assert usable_cpus(tmp_path, own) == AFFINITY
    assert usable_cpus(tmp_path, tmp_path / "absent") == AFFINITY


@pytest.mark.parametrize(
    ("quota", "expected"), [("50000 100000", 1), ("max 100000", AFFINITY), ("9900000 100000", AFFINITY)]
)
def test_the_tightest_quota_on_the_way_up_decides(tmp_path, own, quota, expected):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "cpu.max").write_text(quota + "\n")
    (tmp_path / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert usable_cpus(tmp_path, own) == expected


def test_the_older_kind_of_cgroup_is_read_as_well(tmp_path, own):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path, own) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert usable_cpus(tmp_path, own) == AFFINITY
