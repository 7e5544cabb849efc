"""YAML from outside as plain values: no tags of Python, no aliases, bounded in size, depth and number of values.

An alias may stand for any part of the text, so that a few lines can mean more values than a machine has memory for;
nothing that we read needs one.
"""

from __future__ import annotations

from typing import Any

from edgepack.errors import BadInput

LARGEST = 256 << 10  # bytes of a file
MOST_VALUES = 20_000
DEEPEST = 32


def read_yaml(data: bytes, where: str, *, texts: bool = False) -> Any:
    """The one document of a file; with `texts` every scalar as it is written, so that 3.10 does not become 3.1.

    Raises BadInput that names the line of what does not read.
    """
    import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

    if len(data) > LARGEST:
        raise BadInput(f"{where} is larger than {LARGEST} bytes: expected a few settings")
    try:
        _check(yaml, data, where)
        return yaml.load(data, Loader=yaml.BaseLoader if texts else yaml.SafeLoader)  # noqa: S506 - plain values, both
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{where} is not YAML{line}: {' '.join(str(error.problem or error.context).split())}") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise BadInput(f"{where} is not YAML: {' '.join(str(error).split())[:200]}") from error


def _check(yaml: Any, data: bytes, where: str) -> None:
    """Walk over the events, which hold no values yet."""
    depth = 0
    for number, each in enumerate(yaml.parse(data, Loader=yaml.SafeLoader)):
        if isinstance(each, yaml.AliasEvent):
            line = each.start_mark.line + 1
            raise BadInput(f"{where}, line {line}: the alias '*{each.anchor[:40]}' is not read: write the value itself")
        getattr(each, "value", "").encode()  # half a letter, as in "\ud800", can be written nowhere
        depth += isinstance(each, yaml.CollectionStartEvent) - isinstance(each, yaml.CollectionEndEvent)
        if depth > DEEPEST or number > MOST_VALUES:
            most = f"more than {DEEPEST} levels" if depth > DEEPEST else f"more than {MOST_VALUES} values"
            raise BadInput(f"{where} has {most}: expected a few settings")
