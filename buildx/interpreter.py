"""The base's own Python for this machine: what makes `.pyc` files and compresses, so that the bytes follow the lock
alone.

An image for ARM built on x86 gets its `.pyc` files from Debian's python3.11 for x86, of the release that the lock
names for the image: bytecode does not depend on the architecture, only on the release. The packages are unpacked into
the cache and run through their own dynamic loader, so that neither this machine's Python nor its libc matters.
Nothing of the target is executed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from arch.traits import Traits
from buildx.debian import read_deb, upstream
from buildx.lock import LockedPackage
from edgepack.errors import BuildFailed

_TIMEOUT_S = 600
_DIGESTS = "digests.json"
_KEPT = ("usr/bin/python3", "usr/lib/", "lib/", "lib64/")


def interpreter_packages(python: str) -> tuple[str, ...]:
    """The packages that a bare interpreter needs, zlib and hashing built in."""
    return (f"python{python}-minimal", f"libpython{python}-minimal", "libc6", "libexpat1", "zlib1g")


class Interpreter:
    """One interpreter, unpacked when it is used first. `release` and `zlib` are upstream versions: they decide what
    it writes.

    `traits` and `packages` are those of this machine's architecture; `obtain` gives the files of packages by name.
    """

    def __init__(
        self, traits: Traits, packages: Sequence[LockedPackage], obtain: Callable[[], Mapping[str, Path]], cache: Path
    ) -> None:
        wanted = {each.name: each for each in packages if each.name in interpreter_packages(traits.python)}
        self.python = traits.python
        self.release = upstream(wanted[f"python{traits.python}-minimal"].version)
        self.zlib = upstream(wanted["zlib1g"].version)
        self._machine = traits.machine
        self._obtain = obtain
        self._root = (
            cache / hashlib.sha256("\n".join(sorted(each.sha256 for each in wanted.values())).encode()).hexdigest()
        )
        self._checked = False
        self._unpacking = threading.Lock()

    @property
    def tag(self) -> str:
        """The tag in the name of a `.pyc` file."""
        return f"cpython-{self.python.replace('.', '')}"

    def run(self, script: str, arguments: Sequence[str], stdin: BinaryIO, stdout: BinaryIO) -> None:
        """Run a script to its end, in an empty environment. Raises BuildFailed with its last line."""
        root = self._unpacked()
        libraries = [root / "lib" / f"{self._machine}-linux-gnu", root / "usr/lib" / f"{self._machine}-linux-gnu"]
        loader = next(path for folder in ("lib64", "lib") for path in sorted((root / folder).glob("ld-linux*.so.*")))
        program = [
            str(loader),
            "--library-path",
            ":".join(map(str, libraries)),
            str(root / f"usr/bin/python{self.python}"),
        ]
        environment = {"PYTHONHASHSEED": "0", "PYTHONHOME": str(root / "usr"), "LC_ALL": "C.UTF-8"}
        try:
            done = subprocess.run(
                [*program, "-S", "-s", "-B", "-c", script, *arguments],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=root,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BuildFailed(
                f"the base's interpreter in '{root}' does not run here: {error}; set EDGEPACK_CACHE to a folder whose "
                "programs may be run, or use --base"
            ) from error
        if done.returncode:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise BuildFailed(f"the base's interpreter in '{root}' ended with {done.returncode}: {last[0]}")

    def _unpacked(self) -> Path:
        """The folder it is unpacked in: from the cache, when every file still has its digest."""
        with self._unpacking:
            if not self._checked and not _is_whole(self._root):
                debs = self._obtain()
                _unpack_into(self._root, [debs[name] for name in interpreter_packages(self.python)])
            self._checked = True
            return self._root


def _is_whole(root: Path) -> bool:
    """Say whether a folder still holds what was unpacked into it."""
    try:
        digests = msgspec.json.decode((root / _DIGESTS).read_bytes(), type=dict[str, str])
        return all(hashlib.sha256((root / path).read_bytes()).hexdigest() == digest for path, digest in digests.items())
    except (OSError, msgspec.MsgspecError):
        return False


def _unpack_into(root: Path, debs: Sequence[Path]) -> None:
    """Unpack beside the final place and rename: another build may be doing the same."""
    root.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(dir=root.parent, prefix=".unpack-"))
    try:
        for deb in debs:
            _unpack(deb, stage)
        files = [path for path in sorted(stage.rglob("*")) if path.is_file() and not path.is_symlink()]
        digests = {str(path.relative_to(stage)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        (stage / _DIGESTS).write_bytes(msgspec.json.encode(digests))
        stage.chmod(0o755)
        if root.exists() and not _is_whole(root):
            shutil.rmtree(root, ignore_errors=True)
        try:
            stage.rename(root)
        except OSError:
            if not _is_whole(root):
                raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _unpack(deb: Path, stage: Path) -> None:
    data = read_deb(deb).data
    for member in data:
        path = os.path.normpath(member.name)
        if not path.startswith(_KEPT) or path.startswith(("..", "/")) or "/gconv/" in path:
            continue
        final = stage / path
        final.parent.mkdir(parents=True, exist_ok=True)
        if member.issym():
            # an absolute link of the package means a place inside the unpacked tree
            inside = (
                os.path.relpath(member.linkname.lstrip("/"), Path(path).parent)
                if member.linkname[0] == "/"
                else member.linkname
            )
            final.symlink_to(inside)
        elif member.isfile():
            content = data.extractfile(member)
            final.write_bytes(content.read() if content else b"")
            final.chmod(0o755)
