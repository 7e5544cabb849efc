"""What a registry says about a refusal (distribution-spec, "Error Codes"), fit for one line of ours.

Anybody may have written the body: it is read up to a limit, its message is cut short and printable, and what looks
like a query is left out, for it may be a signature.
"""

from __future__ import annotations

import re

import msgspec

LIMIT = 1 << 16  # bytes of a body that are looked at
_LONGEST = 300  # signs of a message
_CODE = re.compile(r"[A-Z_]{1,40}")
_QUERY = re.compile(r"(?<=\S)\?\S+")


class _Error(msgspec.Struct):
    code: str = ""
    message: str | None = None


class _Body(msgspec.Struct):
    errors: list[_Error] = []


def told(body: bytes) -> str:
    """The codes in brackets and the first message, such as ` (DENIED): devices may pull, not push`; often nothing."""
    try:
        errors = msgspec.json.decode(body, type=_Body).errors
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
    codes = sorted({each.code for each in errors if _CODE.fullmatch(each.code)} - {"UNKNOWN"})
    said = next((each.message for each in errors if each.message and each.message not in codes), "")
    line = " ".join(_QUERY.sub("", said).split())[:_LONGEST]
    readable = "".join(sign if sign.isprintable() else "?" for sign in line)
    return (f" ({', '.join(codes)})" if codes else "") + (f": {readable}" if readable else "")
