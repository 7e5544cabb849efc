"""What the generated Dockerfile runs in its cross stage: wheels or a tar become the files of one layer, with bytecode.

    python3 -m buildx.workshop GIVEN OUT SITE {bytecode|plain}

GIVEN is a folder of wheels and tars, OUT the folder that becomes the layer. It runs in the base for the building
machine, where only the standard library is, and uses the very rules of the direct builder: so the two give one tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from buildx.entries import BytesSource, Entry, complete
from buildx.pyc import compiled
from buildx.wheel_files import Place, wheel_entries
from edgepack.errors import BuildFailed

# of buildx/, what this needs
MODULES = ("elf", "entries", "pyc", "unneeded", "unused_libraries", "wheel_files", "workshop")


class OwnInterpreter:
    """The Python that this runs in, as a compiler of bytecode: in a process of its own, as everywhere else."""

    @property
    def tag(self) -> str:
        """The tag in the name of a `.pyc` file."""
        return sys.implementation.cache_tag or ""

    def run(self, script: str, arguments: Sequence[str], stdin: BinaryIO, stdout: BinaryIO) -> None:
        """Run a script to its end, in an empty environment. Raises BuildFailed with its last line."""
        done = subprocess.run(
            [sys.executable, "-S", "-s", "-B", "-c", script, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if done.returncode:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise BuildFailed(f"the base's interpreter ended with {done.returncode}: {last[0]}")


def make_layer(given: Path, out: Path, site: str, *, bytecode: bool) -> None:
    """Write the files of one layer below `out`."""
    place = Place(sys.executable, site)
    found = [entry for path in sorted(given.iterdir()) for entry in _entries(path, place)]
    complete(found)  # a path that is there twice fails before anything is compiled
    made = compiled(found, OwnInterpreter()) if bytecode else []
    _write(complete([*found, *made]), out)


def _entries(path: Path, place: Place) -> Iterable[Entry]:
    return wheel_entries(path, place) if path.suffix == ".whl" else _members(path)


def _members(path: Path) -> Iterator[Entry]:
    with tarfile.open(path) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            source = BytesSource(content.read()) if content else None
            kind = "folder" if member.isdir() else "link" if member.issym() else "file"
            yield Entry(member.name, kind, source, member.mode, member.linkname, member.uid)  # type: ignore[arg-type]


def _write(entries: Iterable[Entry], out: Path) -> None:
    """Write entries in the order in which `complete` gives them: folders before what is in them."""
    out.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        path = out / entry.path
        if entry.kind == "folder":
            path.mkdir()
        elif entry.kind == "link":
            path.symlink_to(entry.target)
        else:
            with path.open("wb") as file:
                file.writelines(entry.source.chunks() if entry.source else ())
        if path.lstat().st_uid != entry.owner:
            os.chown(path, entry.owner, entry.owner, follow_symlinks=False)
        if entry.kind != "link":
            path.chmod(entry.mode)


if __name__ == "__main__":
    make_layer(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], bytecode=sys.argv[4] == "bytecode")
