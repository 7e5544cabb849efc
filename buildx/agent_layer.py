"""The agent in an image: the device rooms and the three modules of `edgepack/` that they need, under
/opt/edgepack/app.

They are found through the import system, so a checkout and an installed wheel give the same bytes. `/persist` is made
here too: a base of the user's own does not have it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from buildx.base import USER
from buildx.entries import Entry, file, folder
from edgepack.errors import BuildFailed

DEVICE_ROOMS = ("arch", "durable", "columns", "oci", "bundle", "fleet", "runtimes", "edge_agent")
PROGRAM = "usr/local/bin/edgepack-agent"
_APP = "opt/edgepack/app"
_FACE = ("__init__.py", "errors.py", "launch.py", "py.typed")
_PROGRAM = """\
#!{python}
import sys

sys.path.insert(0, "/{app}")
from edgepack.launch import agent

agent()
"""


def agent_entries(python: str) -> list[Entry]:
    """The entries of the layer; `python` is the path of the image's interpreter."""
    entries = [Entry(PROGRAM, "file", file("", _PROGRAM.format(python=python, app=_APP).encode()).source, 0o755)]
    entries += [file(f"{_APP}/edgepack/{name}", _content(_folder("edgepack") / name)) for name in _FACE]
    entries += [file(f"{_APP}/{room}/{path}", data) for room in DEVICE_ROOMS for path, data in _files(_folder(room))]
    entries.append(folder("persist", owner=USER))
    return entries


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BuildFailed(f"package '{package}' of edgepack is not there: install edgepack again")
    return Path(next(iter(spec.submodule_search_locations)))


def _files(room: Path) -> Iterator[tuple[str, bytes]]:
    """All files of a room but what Python or an editor left there."""
    for path in sorted(room.rglob("*")):
        name = path.relative_to(room).as_posix()
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.split("/"))
        if path.is_file() and not hidden and not name.endswith((".pyc", "~")):
            yield name, _content(path)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BuildFailed(
            f"file '{path.name}' of edgepack does not read: {error.strerror}; install edgepack again"
        ) from error
