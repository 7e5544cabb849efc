"""Empty libraries, held against a real loader, and the rule by which a library is one: libraries made by hand."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from buildx.elf import empty_library, symbols
from buildx.entries import Entry, file
from buildx.unused_libraries import without_unused


def library(given: tuple[str, ...] = (), wanted: tuple[str, ...] = (), machine: int = 62) -> bytes:
    """A library with a table of dynamic symbols, as far as this room reads it."""
    texts, table = b"\0", bytes(24)
    for name, section in (*((each, 1) for each in given), *((each, 0) for each in wanted)):
        table += struct.pack("<IBBHQQ", len(texts), 1 << 4, 0, section, 0, 0)
        texts += name.encode() + b"\0"
    head = 64 + 3 * 64
    sections = bytes(64) + struct.pack("<IIQQQQIIQQ", 0, 11, 0, 0, head, len(table), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, head + len(table), len(texts), 0, 0, 1, 0)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    return (
        struct.pack("<16sHHIQQQIHHHHHH", ident, 3, machine, 1, 0, 0, 64, 0, 64, 56, 0, 64, 3, 0)
        + sections
        + table
        + texts
    )


def emptied(**libraries: bytes) -> set[str]:
    entries = [file(f"site/pyarrow/{name}.so.1", data) for name, data in libraries.items()]
    after = without_unused("pyarrow", entries)
    assert [each.path for each in after] == [each.path for each in entries]
    changed = zip(entries, after, strict=True)
    return {Path(each.path).name.partition(".")[0] for each, now in changed if each.source != now.source}


def test_a_library_is_emptied_when_nothing_that_is_kept_wants_a_symbol_of_it():
    core = library(("read", "write"))
    assert emptied(libarrow=core, lib=library((), ("read",)), libparquet=library(("pages",), ("read",))) == {
        "libparquet"
    }
    assert emptied(libarrow=core, lib=library((), ("pages",)), libparquet=library(("pages",))) == set()
    assert emptied(libarrow=core, lib=library((), ("read",)), libparquet=library(("read",))) == {"libparquet"}, (
        "what another library gives too is not missed"
    )


def test_what_a_kept_candidate_wants_is_kept_with_it():
    found = emptied(
        lib=library((), ("scan",)),
        libarrow_dataset=library(("scan",), ("pages",)),
        libparquet=library(("pages",)),
        libarrow_substrait=library(("plan",), ("scan",)),
    )
    assert found == {"libarrow_substrait"}


def test_other_packages_and_what_is_no_library_are_left_as_they_are():
    entry = file("site/other/libparquet.so.1", library())
    assert without_unused("other", [entry]) == [entry]
    assert emptied(libparquet=b"#!/bin/sh") == set()


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x01\x01\x01" + bytes(100), b"text"])
def test_what_is_no_library_of_our_kind_has_no_symbols(data):
    assert symbols(data) is None


def test_the_symbols_of_a_real_library_are_those_that_the_loader_finds():
    (path,) = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/libc.so.6" in line
    } or {None}
    if path is None:
        pytest.skip("this Python has no libc.so.6")
    found = symbols(Path(path).read_bytes())
    assert {b"malloc", b"strlen", b"pthread_create"} <= found.given
    loaded = ctypes.CDLL(path)
    assert all(hasattr(loaded, name.decode()) for name in (b"malloc", b"strlen"))


def test_the_loader_takes_an_empty_library_and_asks_for_no_stack_with_code_in_it(tmp_path):
    like = Path(sys.executable).resolve().read_bytes()
    path = tmp_path / "libempty.so.1"
    path.write_bytes(empty_library(like, path.name))
    program = f"import ctypes; ctypes.CDLL({str(path)!r}); print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (stack,) = [line for line in done.stdout.splitlines() if "[stack]" in line]
    assert "x" not in stack.split()[1]
    assert symbols(path.read_bytes()).given == frozenset()


@pytest.mark.skipif(not shutil.which("readelf"), reason="needs readelf (binutils)")
@pytest.mark.parametrize(("machine", "name"), [(62, "X86-64"), (183, "AArch64")])
def test_binutils_reads_an_empty_library_as_what_it_is(tmp_path, machine, name):
    (tmp_path / "l.so").write_bytes(empty_library(library(machine=machine), "libparquet.so.2600"))
    said = subprocess.run(["readelf", "-hldW", str(tmp_path / "l.so")], capture_output=True, text=True, check=True)
    assert name in said.stdout and "Library soname: [libparquet.so.2600]" in said.stdout
    assert "Warning" not in said.stderr + said.stdout and "Error" not in said.stderr


def test_an_entry_keeps_its_mode_when_it_is_emptied():
    entries = [Entry("pyarrow/libparquet.so.1", "file", file("", library(("a",))).source, 0o755)]
    assert without_unused("pyarrow", entries)[0].mode == 0o755
