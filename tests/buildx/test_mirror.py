from __future__ import annotations

from pathlib import Path

import pytest

from buildx.mirror import Mirror, find_mirror, find_security
from edgepack.errors import BadInput


def apt(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / "sources.list.d" / name.replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_the_variable_wins_over_apt(tmp_path):
    folder = apt(tmp_path, a_list="deb http://apt.example/debian bookworm main\n")
    assert (
        find_mirror({"EDGEPACK_DEBIAN_MIRROR": "http://mine.example/debian/"}, folder).uri
        == "http://mine.example/debian"
    )


def test_a_variable_that_is_no_address_is_refused():
    with pytest.raises(BadInput, match="EDGEPACK_DEBIAN_MIRROR is 'mine'"):
        find_mirror({"EDGEPACK_DEBIAN_MIRROR": "mine"}, Path("/nothing"))


def test_a_deb822_stanza_is_read_with_its_keyring(tmp_path):
    text = """# a comment
Types: deb deb-src
URIs: https://apt.example/debian/
Suites: trixie
  trixie-updates
Components: main contrib
Signed-By: /keys/a.gpg
"""
    assert find_mirror({}, apt(tmp_path, a_sources=text)) == Mirror("https://apt.example/debian", Path("/keys/a.gpg"))


def test_security_disabled_and_foreign_entries_are_passed_over(tmp_path):
    stanzas = """Types: deb
URIs: http://security.example/debian
Suites: bookworm-security
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: http://node.example/node
Suites: nodistro
Components: main
"""
    lines = """# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb [arch=amd64 signed-by=/keys/b.gpg] http://good.example/debian bookworm main # the one
"""
    folder = apt(tmp_path, a_sources=stanzas, b_list=lines)
    assert find_mirror({}, folder) == Mirror("http://good.example/debian", Path("/keys/b.gpg"))


@pytest.mark.parametrize("text", ["", "deb http://archive.example/ubuntu noble main universe\n", "deb 'unclosed\n"])
def test_a_machine_without_debian_is_told_both_ways_out(tmp_path, text):
    with pytest.raises(BadInput, match=r"EDGEPACK_DEBIAN_MIRROR.*--base"):
        find_mirror({}, apt(tmp_path, a_list=text))


def test_the_archive_of_security_updates_is_the_one_that_apt_uses(tmp_path):
    sources = tmp_path / "sources.list"
    sources.write_text(
        "deb http://mirror.example/debian bookworm main\n"
        "deb http://security.example/debian-security trixie-security main\n"
        "deb http://security.example/debian-security bookworm-security main\n"
    )
    assert find_security({}, tmp_path, "bookworm").uri == "http://security.example/debian-security"
    assert find_security({}, tmp_path, "forky") is None


def test_whoever_names_a_mirror_names_the_updates_too_or_has_none(tmp_path):
    (tmp_path / "sources.list").write_text("deb http://security.example/debian-security bookworm-security main\n")
    named = {"EDGEPACK_DEBIAN_MIRROR": "http://mirror.example/debian"}
    assert find_security(named, tmp_path, "bookworm") is None
    named["EDGEPACK_DEBIAN_SECURITY_MIRROR"] = "file:/srv/security/"
    assert find_security(named, tmp_path, "bookworm").uri == "file:/srv/security"
    with pytest.raises(BadInput, match="EDGEPACK_DEBIAN_SECURITY_MIRROR is 'x'"):
        find_security({"EDGEPACK_DEBIAN_SECURITY_MIRROR": "x"}, tmp_path, "bookworm")
