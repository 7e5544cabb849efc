"""Mirrors that moved on since edgepack.lock was written, over real HTTP: builds go on with what is there now, and say
which digest changed.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from arch import Target, traits_of
from buildx import Built, Options, Quiet, Workplace, build
from buildx.archive import DebianArchive
from buildx.debian import Package, read_deb
from buildx.lock import Lock, LockedPackage
from buildx.mirror import APT, Mirror, find_mirror
from buildx.packages import BasePackages
from edgepack.commands.cache import cache_folder
from edgepack.errors import BadInput, NotTrusted, Unreachable
from oci.tar import Tar
from oci.validate import validate
from tests.buildx.http_mirror import http_mirror
from tests.buildx.parts import agent_wheels, make_bundle, make_deb, make_mirror, write_release
from tests.images.pins import Pin, unpacked

X86 = traits_of(Target("x86"))


@pytest.fixture(scope="module")
def real_packages() -> dict[str, tuple[Package, Path]]:
    """The packages of a real base, from this machine's mirror or the cache."""
    try:
        mirror = find_mirror(os.environ, APT)
    except BadInput as error:
        pytest.skip(str(error))
    folder = cache_folder(os.environ) / "debian"
    archive = DebianArchive(mirror, folder, Quiet())
    packages = BasePackages(lambda: archive, folder, Quiet())
    locked = packages.lock(X86, None)
    files = packages.obtain(X86, locked)[1]
    index = archive.index("bookworm", "amd64")
    return {each.name: (index[each.name], files[each.name]) for each in locked.packages}


def mirror_of(folder: Path, packages: dict[str, tuple[Package, Path]]) -> Path:
    """A mirror in a folder that has exactly these packages."""
    (folder / "pool").mkdir(parents=True, exist_ok=True)
    stanzas = []
    for name, (package, path) in sorted(packages.items()):
        filename = f"pool/{name}_{package.sha256[:8]}.deb"
        shutil.copy(path, folder / filename)
        depends = ", ".join(" | ".join(each) for each in package.depends)
        fields = {
            "Package": name, "Version": package.version, "Depends": depends, "Size": package.size,
            "SHA256": package.sha256, "Filename": filename,
        }  # fmt: skip
        stanzas.append("".join(f"{key}: {text}\n" for key, text in fields.items() if text))
    write_release(folder, stanzas)
    return folder


class Machine:
    """A machine whose apt names one mirror, with a project on it and nothing cached but what its builds made."""

    def __init__(self, folder: Path, mirror: str) -> None:
        self.folder, self.report = folder, Quiet()
        self.bundle, self.wheels = make_bundle(folder / "project"), agent_wheels(folder / "wheels")
        self.apt = folder / "apt"
        self.apt.mkdir()
        # no such keyring: nobody signs this mirror's releases, and that is said
        (self.apt / "sources.list").write_text(f"deb [signed-by=/no/keyring.gpg] {mirror} bookworm main\n")

    def build(self, *, locked: bool = False) -> Built:
        project, output = self.folder / "project", self.folder / "out.tar"
        options = Options(project, project, output, wheels=self.wheels, locked=locked)
        workplace = Workplace(self.folder / "cache", {"UV_OFFLINE": "1", "PATH": os.environ["PATH"]}, self.apt)
        return build(self.bundle, [Target("x86")], options, workplace, self.report)

    @property
    def lock(self) -> dict[str, LockedPackage]:
        text = (self.folder / "project/edgepack.lock").read_text()
        return {each.name: each for each in Lock.decode(text, "edgepack.lock").base["amd64"].packages}


def test_a_build_locks_anew_what_the_mirror_no_longer_has_and_says_which_digest_changed(real_packages, tmp_path):
    with http_mirror(mirror_of(tmp_path / "mirror", real_packages)) as mirror:
        machine = Machine(tmp_path, mirror.url)
        first, before = machine.build(), machine.lock
        # the archive has a newer package and dropped the older; nothing of it is cached on this machine any more
        fields = make_deb(tmp_path / "new.deb", "netbase", "99.1", {"etc/protocols": b"tcp 6 TCP\n"})
        newer = Package("netbase", "99.1", str(fields["SHA256"]), int(fields["Size"]), "", ())
        shutil.rmtree(tmp_path / "mirror")
        mirror_of(tmp_path / "mirror", {**real_packages, "netbase": (newer, tmp_path / "new.deb")})
        shutil.rmtree(tmp_path / "cache/debian")
        shutil.rmtree(tmp_path / "cache/layers")
        with pytest.raises(BadInput, match="--locked: the mirror no longer has 'netbase'"):
            machine.build(locked=True)
        assert machine.lock == before
        again = machine.build()
    (line,) = [line for line in machine.report.notices if "locked anew" in line]
    assert f"locked anew as 99.1: its digest changed from sha256:{before['netbase'].sha256} to" in line
    assert line.endswith(newer.sha256)
    changed = {name for name, package in machine.lock.items() if before[name] != package}
    assert changed == {"netbase"}
    assert again.digest != first.digest
    assert validate(Tar(again.path)) == []


def packages(folder: Path, url: str, report: Quiet | None = None) -> BasePackages:
    archive = DebianArchive(Mirror(url), folder / "cache", report or Quiet(), gpgv=None)
    return BasePackages(lambda: archive, folder / "cache", report or Quiet())


def test_a_mirror_that_names_a_package_and_does_not_give_it_is_said_in_one_line(tmp_path):
    make_mirror(tmp_path / "mirror")
    (tmp_path / "mirror/pool/netbase_1.0-1.deb").unlink()
    with http_mirror(tmp_path / "mirror") as mirror:
        source = packages(tmp_path, mirror.url)
        with pytest.raises(Unreachable, match=r"^127.0.0.1 does not have 'netbase_1.0-1.deb'$"):
            source.obtain(X86, source.lock(X86, None))
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_mirror_that_gives_another_file_under_the_locked_name_is_refused(tmp_path):
    make_mirror(tmp_path / "mirror")
    with http_mirror(tmp_path / "mirror") as mirror:
        source = packages(tmp_path, mirror.url)
        locked = source.lock(X86, None)
        (tmp_path / "mirror/pool/netbase_1.0-1.deb").write_bytes(b"something else")
        with pytest.raises(NotTrusted, match=r"'netbase.deb' from 127.0.0.1 does not have the digest"):
            source.obtain(X86, locked)


def test_an_index_that_changed_under_its_release_file_is_refused(tmp_path):
    make_mirror(tmp_path / "mirror")
    with http_mirror(tmp_path / "mirror") as mirror:
        (tmp_path / "mirror/dists/bookworm/main/binary-amd64/Packages.gz").write_bytes(b"\x1f\x8b lies")
        with pytest.raises(NotTrusted, match=r"'Packages.gz' from 127.0.0.1 does not have the digest"):
            packages(tmp_path, mirror.url).lock(X86, None)


def test_the_pins_of_these_tests_follow_a_mirror_that_moved_on_with_a_line_that_says_so(tmp_path, capsys):
    folder = make_mirror(tmp_path / "mirror", "2.0-1")
    with http_mirror(folder) as mirror:
        archive = DebianArchive(Mirror(mirror.url), tmp_path / "cache", Quiet(), gpgv=None)
        pins = (Pin("bookworm", "netbase", "0" * 64, ("usr/share/",)),)
        root = unpacked(pins, tmp_path / "unpacked", lambda: archive)
    assert (root / "usr/share/netbase/a").read_bytes() == b"2.0-1"
    sha256 = archive.index("bookworm", "amd64")["netbase"].sha256
    said = capsys.readouterr().err
    assert f"the mirror moved on to netbase 2.0-1 of bookworm, sha256 {sha256}: pin it in" in said
    assert read_deb(next((tmp_path / "cache").rglob("netbase.deb"))).control.startswith("Package: netbase")
