"""What an image's Python must have: the agent's requirements, and those of the runtimes that its pipeline uses."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from arch.traits import Traits

_FILE = Path(__file__).with_name("agent_requirements.txt")
_OF_RUNTIME = {"onnx": {"onnxruntime"}, "tflite": {"ai-edge-litert"}, "text": {"tokenizers"}}
_NOT_IMPORTED = {"text": ("huggingface-hub",)}  # what their metadata asks for: here it fetches tokenizers from a hub


def requirements_for(
    runtimes: Iterable[str],
    instead: Mapping[str, Sequence[str]] | None = None,
    exclude: Collection[str] = (),
) -> list[str]:
    """The requirement lines for a pipeline, sorted.

    `instead` holds what a target asks for in place of a package, `exclude` names what it leaves out.
    """
    used = set(runtimes)
    unused = {name for runtime, names in _OF_RUNTIME.items() if runtime not in used for name in names}
    kept = [line for line in agent_requirements() if _name(line) not in {*unused, *exclude}]
    return sorted(each for line in kept for each in (instead or {}).get(_name(line), (line,)))


def without_unimported(traits: Traits, runtimes: Collection[str]) -> Traits:
    """A target that leaves out what runtimes' packages ask for and do not import."""
    unused = {name for runtime in runtimes for name in _NOT_IMPORTED.get(runtime, ())}
    return replace(traits, exclude=(*traits.exclude, *sorted(unused - set(traits.exclude)))) if unused else traits


def agent_requirements() -> list[str]:
    """All lines of the file, sorted, without comments."""
    lines = (line.partition("#")[0].strip() for line in _FILE.read_text("utf-8").splitlines())
    return sorted(line for line in lines if line)


def _name(line: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower()
