from __future__ import annotations

import pytest

from arch import Target, traits_of
from buildx.interpreter import Interpreter, interpreter_packages
from buildx.lock import LockedPackage
from edgepack.errors import BuildFailed
from tests.buildx.parts import make_deb

X86 = traits_of(Target("x86"))


class Packages:
    """The interpreter's packages, none of which holds a program that runs."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = 0
        names = interpreter_packages("3.11")
        loader = {
            "lib64/ld-linux-x86-64.so.2": "/lib/x86_64-linux-gnu/ld.so",
            "lib/x86_64-linux-gnu/ld.so": b"\x7fELF none",
        }
        made = {
            name: make_deb(folder / f"{name}.deb", name, "3.11.2-6", loader if name == "libc6" else {})
            for name in names
        }
        self.locked = [LockedPackage(name, "3.11.2-6", str(made[name]["SHA256"]), 1) for name in names]

    def obtain(self):
        self.asked += 1
        return {each.name: self.folder / f"{each.name}.deb" for each in self.locked}

    def interpreter(self) -> Interpreter:
        return Interpreter(X86, self.locked, self.obtain, self.folder / "cache")


@pytest.fixture
def packages(tmp_path):
    return Packages(tmp_path)


def run(interpreter):
    with pytest.raises(BuildFailed, match=r"the base's interpreter in '.*' does not run here: .*EDGEPACK_CACHE"):
        interpreter.run("", [], None, None)


def test_versions_are_known_before_anything_is_fetched(packages):
    made = packages.interpreter()
    assert (made.release, made.tag, packages.asked) == ("3.11.2", "cpython-311", 0)


def test_an_interpreter_is_unpacked_once_and_one_that_does_not_start_is_one_line(packages):
    run(packages.interpreter())
    run(packages.interpreter())
    assert packages.asked == 1


def test_a_damaged_interpreter_in_the_cache_is_unpacked_again(packages):
    run(packages.interpreter())
    library = next((packages.folder / "cache").glob("*/lib/x86_64-linux-gnu/ld.so"))
    library.write_bytes(b"damaged")
    run(packages.interpreter())
    assert packages.asked == 2
    assert next((packages.folder / "cache").glob("*/lib/x86_64-linux-gnu/ld.so")).read_bytes() == b"\x7fELF none"
    assert list((packages.folder / "cache").glob(".unpack-*")) == []
