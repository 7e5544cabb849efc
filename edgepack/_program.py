"""The program `edgepack` in a child process: what the SDK needs of the rooms is asked of it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from edgepack.errors import BadInput, RuntimeFailed

_RUN = "import sys; sys.path.insert(0, {root!r}); from edgepack.launch import edgepack; edgepack()"
_NEEDED = ("click", "msgspec", "numpy", "pyarrow", "uv")  # what packaging takes, in the interpreter that does it


def command() -> list[str]:
    """How `edgepack` is started: by this interpreter if it can package, else by the one on the path."""
    if all(importlib.util.find_spec(each) for each in _NEEDED):
        root = str(Path(__file__).resolve().parent.parent)
        return [sys.executable, "-I", "-c", _RUN.format(root=root)]
    found = shutil.which("edgepack")
    if found is None:
        raise BadInput("preparing a project needs the program edgepack: pip install 'edgepack[packager]'")
    return [found]


def asked(*arguments: str, token: str | None = None) -> str:
    """What the program prints; its progress and warnings are passed on while it works.

    Raises BadInput or RuntimeFailed with its last line. `token` is that of a hub.
    """
    environ = {**os.environ, **({"EDGEPACK_TOKEN": token} if token else {})}
    with tempfile.TemporaryFile("w+") as said:  # a pipe may fill up while the other one is read
        with subprocess.Popen(
            [*command(), *arguments], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.PIPE, text=True,
            env=environ,
        ) as child:  # fmt: skip
            last = _forwarded(child)
        if child.returncode:
            raise failed(child.returncode, last)
        if last:
            sys.stderr.write(f"{last}\n")
        said.seek(0)
        return said.read()


def failed(code: int, said: str) -> BadInput | RuntimeFailed:
    """The error for a program that ended with a code, by the last line it said."""
    last = (said.strip().splitlines() or [f"edgepack ended with {code}"])[-1]
    family = BadInput if code == BadInput.exit_code else RuntimeFailed
    return family(last.removeprefix("edgepack: "))


def _forwarded(child: subprocess.Popen[str]) -> str:
    """Pass on what the child says while it works, but for its last line, which is returned."""
    last = ""
    for line in child.stderr or ():
        if last:
            sys.stderr.write(f"{last}\n")
        last = line.rstrip("\n")
    return last
