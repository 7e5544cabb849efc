"""What an image's Python must have: the agent's requirements, and those of the runtimes that its pipeline uses."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

_FILE = Path(__file__).with_name("agent_requirements.txt")
_OF_RUNTIME = {"onnx": {"onnxruntime"}, "tflite": {"ai-edge-litert"}}


def requirements_for(
    runtimes: Iterable[str],
    replace: Mapping[str, Sequence[str]] | None = None,
    exclude: Collection[str] = (),
) -> list[str]:
    """The requirement lines for a pipeline, sorted.

    `replace` holds what a target asks for in place of a package, `exclude` names what it leaves out.
    """
    used = set(runtimes)
    unused = {name for runtime, names in _OF_RUNTIME.items() if runtime not in used for name in names}
    kept = [line for line in agent_requirements() if _name(line) not in {*unused, *exclude}]
    return sorted(each for line in kept for each in (replace or {}).get(_name(line), (line,)))


def agent_requirements() -> list[str]:
    """All lines of the file, sorted, without comments."""
    lines = (line.partition("#")[0].strip() for line in _FILE.read_text("utf-8").splitlines())
    return sorted(line for line in lines if line)


def _name(line: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower()
