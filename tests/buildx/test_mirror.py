from __future__ import annotations

from pathlib import Path

import pytest

from buildx.mirror import Mirror, find_mirror
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
