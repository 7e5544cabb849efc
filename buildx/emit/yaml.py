"""Values as YAML text, in the one plain style that the emitted files need: blocks, and JSON strings where in doubt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "str | int | bool | Mapping[str, Value] | Sequence[Value]"
# what no reader takes for anything but a string; all else is quoted as JSON, which YAML contains
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*")
_NOT_PRINTED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # YAML 1.2.2, 5.1
_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})


def yaml_text(value: Mapping[str, Value]) -> str:
    """Write one document."""
    return "\n".join(_mapping(value, "")) + "\n"


def _mapping(value: Mapping[str, Value], indent: str) -> Iterator[str]:
    for key, inner in value.items():
        yield from _under(f"{indent}{_scalar(key)}:", inner, f"{indent}  ")


def _under(head: str, value: Value, indent: str) -> Iterator[str]:
    if isinstance(value, str | int):
        yield f"{head} {_scalar(value)}"
    elif not value:
        yield f"{head} {'{}' if isinstance(value, Mapping) else '[]'}"
    elif isinstance(value, Mapping):
        yield head
        yield from _mapping(value, indent)
    else:
        yield head
        for item in value:
            yield from _item(item, indent)


def _item(value: Value, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        first, *rest = _mapping(value, f"{indent}  ")
        yield f"{indent}- {first.lstrip()}"
        yield from rest
    else:
        yield from _under(f"{indent}-", value, f"{indent}  ")


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _NOT_PRINTED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
