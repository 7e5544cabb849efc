from __future__ import annotations

import pytest

from arch import Target, traits_of
from buildx.archive import DebianArchive
from buildx.base import base_entries, resolve_base
from buildx.debian import PackagesIndex, read_deb, upstream
from buildx.lock import LockedPackage
from buildx.mirror import Mirror
from buildx.packages import BasePackages
from buildx.report import Quiet
from edgepack.errors import BadInput, BuildFailed, NotTrusted
from tests.buildx.parts import BASE_PACKAGES, make_deb, make_mirror

X86 = traits_of(Target("x86"))


def stanza(name: str, depends: str = "", provides: str = "") -> str:
    more = (f"Depends: {depends}\n" if depends else "") + (f"Provides: {provides}\n" if provides else "")
    return f"Package: {name}\nVersion: 1-1\nSize: 3\nSHA256: {'a' * 64}\nFilename: pool/{name}.deb\n{more}"


def closure(stanzas: list[str], wanted: list[str], without: tuple[str, ...] = ()) -> list[str]:
    return [each.name for each in PackagesIndex("\n".join(stanzas)).closure(wanted, without)]


def test_a_closure_follows_dependencies_alternatives_and_provides():
    stanzas = [
        stanza("a", "b (>= 1), missing | c:any, virtual"),
        stanza("b"),
        stanza("c", "a"),
        stanza("d", provides="virtual (= 2), other"),
        stanza("unrelated"),
    ]
    assert closure(stanzas, ["a"]) == ["a", "b", "c", "d"]


def test_what_is_left_out_takes_with_it_what_only_it_needs():
    stanzas = [stanza("a", "shell | other"), stanza("shell", "lib"), stanza("lib"), stanza("other")]
    assert closure(stanzas, ["a"], ("shell",)) == ["a"]


def test_a_package_that_the_mirror_lacks_is_named():
    with pytest.raises(BadInput, match="no package 'python9'"):
        closure([stanza("a")], ["python9"])


@pytest.mark.parametrize(
    ("version", "expected"),
    [("3.11.2-6+deb12u8", "3.11.2"), ("1:1.2.13.dfsg-1", "1.2.13"), ("2024a", "2024a"), ("2.36-9+deb12u10", "2.36")],
)
def test_the_upstream_version_is_found(version, expected):
    assert upstream(version) == expected


def entries(tmp_path, files, packing="xz"):
    make_deb(tmp_path / "p.deb", "p", "1-1", files, packing=packing)
    package = LockedPackage("p", "1-1", "0" * 64, 1)
    return {entry.path: entry for entry in base_entries([package], {"p": tmp_path / "p.deb"})}


@pytest.mark.parametrize("packing", ["xz", "gz", "none"])
def test_usr_is_merged_and_links_keep_their_meaning(tmp_path, packing):
    found = entries(
        tmp_path,
        {
            "lib/": b"",
            "lib/x86_64-linux-gnu/libz.so.1": "libz.so.1.2",
            "lib/x86_64-linux-gnu/libz.so.1.2": b"\x7fELF",
            "lib64/ld.so": "/lib/x86_64-linux-gnu/ld.so",
            "lib/udev/up": "../../usr/lib/udev/there",
            "usr/lib/udev/there": b"1",
        },
        packing,
    )
    assert found["lib"].target == "usr/lib"
    assert found["usr/lib/x86_64-linux-gnu/libz.so.1"].target == "libz.so.1.2"
    assert found["usr/lib/x86_64-linux-gnu/libz.so.1.2"].mode == 0o755
    assert found["usr/lib64/ld.so"].target == "/usr/lib/x86_64-linux-gnu/ld.so"
    assert found["usr/lib/udev/up"].target == "there"


def test_shells_manuals_and_tests_are_left_out_and_licences_kept(tmp_path):
    found = entries(
        tmp_path,
        {
            "bin/sh": b"\x7fELF",
            "usr/bin/perl": b"\x7fELF",
            "usr/bin/python3.11": b"\x7fELF",
            "usr/share/man/man1/a.1": b"1",
            "usr/share/doc/p/README": b"1",
            "usr/share/doc/p/copyright": b"1",
            "usr/lib/python3.11/test/test_a.py": b"1",
            "usr/lib/python3.11/unittest/case.py": b"1",
            "usr/lib/python3.11/ctypes/test/a.py": b"1",
            "usr/lib/python3.11/ensurepip/a.py": b"1",
        },
    )
    kept = {
        path
        for path, entry in found.items()
        if entry.kind == "file" and path.startswith(("usr/bin", "usr/share", "usr/lib"))
    }
    assert kept == {"usr/bin/python3.11", "usr/share/doc/p/copyright", "usr/lib/python3.11/unittest/case.py"}


def test_certificates_become_one_bundle_and_scanners_see_the_package(tmp_path):
    found = entries(
        tmp_path,
        {"usr/share/ca-certificates/mozilla/B.crt": b"b\n", "usr/share/ca-certificates/mozilla/A.crt": b"a\n\n"},
    )
    assert found["etc/ssl/certs/ca-certificates.crt"].source.data == b"a\nb\n"
    assert b"Package: p\nStatus: install ok installed\nVersion: 1-1\n" in found["var/lib/dpkg/status.d/p"].source.data
    assert b"edgepack:x:65532:65532::/persist" in found["etc/passwd"].source.data


def test_a_package_that_leads_out_of_the_image_is_refused(tmp_path):
    with pytest.raises(BuildFailed, match="leads out of the image"):
        entries(tmp_path, {"../../etc/passwd": b"1"})


@pytest.mark.parametrize(
    "data", [b"", b"!<arch>\n", b"not a deb", b"!<arch>\ndebian-binary   " + b" " * 32 + b"99999     `\n"]
)
def test_a_file_that_is_no_package_is_refused(tmp_path, data):
    (tmp_path / "x.deb").write_bytes(data)
    with pytest.raises(BuildFailed, match=r"package 'x.deb' does not read"):
        read_deb(tmp_path / "x.deb")


def packages(tmp_path, mirror, report=None, frozen=False, gpgv=None) -> BasePackages:
    report = report or Quiet()
    archive = DebianArchive(Mirror(mirror.as_uri()), tmp_path / "cache", report, gpgv=gpgv)
    return BasePackages(lambda: archive, tmp_path / "cache", report, frozen=frozen)


def test_a_locked_base_in_the_cache_needs_no_mirror(tmp_path):
    mirror = make_mirror(tmp_path / "mirror")
    source = packages(tmp_path, mirror)
    locked = source.lock(X86, None)
    assert [each.name for each in locked.packages] == sorted(BASE_PACKAGES)
    source.obtain(X86, locked)
    away = packages(tmp_path, tmp_path / "gone", frozen=True)
    assert away.lock(X86, locked) == locked
    assert set(away.obtain(X86, locked)[1]) == set(BASE_PACKAGES)


def test_a_package_that_left_the_mirror_is_locked_anew_with_a_line_that_says_so(tmp_path):
    locked = packages(tmp_path, make_mirror(tmp_path / "mirror")).lock(X86, None)
    report = Quiet()
    anew, debs = packages(tmp_path, make_mirror(tmp_path / "mirror", "1.0-2"), report).obtain(X86, locked)
    assert {each.version for each in anew.packages} == {"1.0-2"}
    assert debs["netbase"].is_file()
    lines = [line for line in report.notices if "'netbase' 1.0-1 is no longer on the mirror, " in line]
    assert len(lines) == 1
    assert "locked anew as 1.0-2: its digest changed from sha256:" in lines[0]


def test_locked_refuses_to_choose_anew(tmp_path):
    mirror = make_mirror(tmp_path / "mirror")
    locked = packages(tmp_path, mirror).lock(X86, None)
    frozen = packages(tmp_path, make_mirror(tmp_path / "mirror", "1.0-2"), frozen=True)
    with pytest.raises(BadInput, match=r"--locked: the mirror no longer has 'base-files' 1.0-1"):
        frozen.obtain(X86, locked)
    with pytest.raises(BadInput, match=r"--locked: edgepack.lock has no base for amd64"):
        frozen.lock(X86, None)


def test_a_package_with_other_bytes_than_the_index_says_is_refused(tmp_path):
    mirror = make_mirror(tmp_path / "mirror")
    source = packages(tmp_path, mirror)
    locked = source.lock(X86, None)
    (mirror / "pool/netbase_1.0-1.deb").write_bytes(b"other")
    with pytest.raises(NotTrusted, match=r"'netbase.deb' from this machine does not have the digest"):
        source.obtain(X86, locked)
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_an_unchecked_signature_is_said_once(tmp_path):
    report = Quiet()
    source = packages(tmp_path, make_mirror(tmp_path / "mirror"), report)
    source.lock(X86, None)
    assert [line for line in report.notices if "signature of Debian bookworm was not checked" in line] == report.notices


def test_a_release_without_a_good_signature_is_refused(tmp_path):
    import shutil

    gpgv = shutil.which("gpgv")
    keyring = Mirror("").keyring
    if not gpgv or not keyring.is_file():
        pytest.skip("needs gpgv and debian-archive-keyring")
    with pytest.raises(NotTrusted, match="no good signature"):
        packages(tmp_path, make_mirror(tmp_path / "mirror"), gpgv=gpgv).lock(X86, None)


def test_a_mirror_of_another_distribution_is_refused(tmp_path):
    mirror = make_mirror(tmp_path / "mirror")
    (mirror / "dists/bookworm/InRelease").write_text("Origin: Ubuntu\n")
    with pytest.raises(NotTrusted, match="is not Debian's"):
        packages(tmp_path, mirror).lock(X86, None)


def test_the_choice_of_a_base_is_sorted_and_complete():
    names = [*BASE_PACKAGES, "libc6"]
    index = PackagesIndex("\n".join(stanza(name, "libc6, debconf" if name == "tzdata" else "") for name in names))
    assert [each.name for each in resolve_base(index, "bookworm", "3.11").packages] == sorted(names)
