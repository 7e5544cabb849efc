"""Security updates: the newer package of two archives, in dpkg's own order, and a lock that keeps the older."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arch import Target, traits_of
from buildx.archive import DebianArchive
from buildx.debian import PackagesIndex, version_key
from buildx.mirror import Mirror
from buildx.packages import BasePackages
from buildx.report import Quiet
from tests.buildx.parts import make_mirror

X86 = traits_of(Target("x86"))
TEXT = st.text("0123456789abz.+~", min_size=1, max_size=8).map(lambda text: f"1{text}")
VERSIONS = st.builds(
    lambda epoch, upstream, revision: f"{epoch}{upstream}{revision}",
    st.sampled_from(["", "1:", "0:"]),
    TEXT,
    TEXT.map(lambda text: f"-{text}") | st.just(""),
)


@pytest.mark.skipif(not shutil.which("dpkg"), reason="the order is compared with dpkg's, which is not here")
@given(VERSIONS, VERSIONS)
@example("3.11.2-6+deb12u10", "3.11.2-6+deb12u6")
@example("1.0~rc1-1", "1.0-1")
@example("1:0.1", "2.0")
@settings(max_examples=60, deadline=None)
def test_versions_are_ordered_as_dpkg_orders_them(one, other):
    asked = "lt" if version_key(one) < version_key(other) else "eq" if version_key(one) == version_key(other) else "gt"
    assert subprocess.run(["dpkg", "--compare-versions", one, asked, other], check=False).returncode == 0


def stanza(name, version, digest):
    return f"Package: {name}\nVersion: {version}\nSize: 3\nSHA256: {digest * 64}\nFilename: pool/{name}_{version}.deb\n"


def test_the_newer_of_two_wins_and_the_older_is_found_by_its_digest():
    main = PackagesIndex("\n".join([stanza("a", "1-9", "a"), stanza("b", "2", "b")]), "http://main.example")
    updates = PackagesIndex(
        "\n".join([stanza("a", "1-10", "c"), stanza("b", "1", "d"), stanza("z", "1", "e")]), "http://s"
    )
    both = main.updated(updates)
    assert (both["a"].version, both["a"].archive) == ("1-10", "http://s")
    assert (both["b"].version, both["b"].archive) == ("2", "http://main.example")
    assert both["z"].archive == "http://s"
    assert both.find("a", "a" * 64).version == "1-9"
    assert both.find("b", "d" * 64).archive == "http://s"
    assert both.find("a", "f" * 64) is None


def packages(tmp_path, folder, security):
    def archive():
        return DebianArchive(
            Mirror((folder / "main").as_uri()),
            tmp_path,
            Quiet(),
            security=lambda release: Mirror((folder / "security").as_uri()) if security else None,
            gpgv=None,
        )

    return BasePackages(archive, tmp_path, Quiet())


def test_a_base_takes_updates_and_a_locked_one_stays_as_it_is(tmp_path):
    make_mirror(tmp_path / "main", "1.0-1")
    make_mirror(tmp_path / "security", "1.0-1+deb12u1", release="bookworm-security")
    before = packages(tmp_path / "a", tmp_path, security=False).lock(X86, None)
    assert {each.version for each in before.packages} == {"1.0-1"}
    with_updates = packages(tmp_path / "b", tmp_path, security=True)
    after, files = with_updates.obtain(X86, with_updates.lock(X86, None))
    assert {each.version for each in after.packages} == {"1.0-1+deb12u1"}
    assert all(path.is_file() for path in files.values())
    # the older lock is still built from what it names
    kept, files = packages(tmp_path / "c", tmp_path, security=True).obtain(X86, before)
    assert kept == before and all(path.is_file() for path in files.values())
