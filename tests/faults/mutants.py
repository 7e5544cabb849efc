"""Damaged requests, made from right ones by a seed: the same number gives the same bytes on every machine.

What is done to one: bits, bytes and lengths changed, pieces cut out, doubled, put in; JSON values replaced by deep,
huge and wrong ones; headers dropped, doubled, contradicted; bodies packed, packed wrongly, packed to a bomb; chunks.
"""

from __future__ import annotations

import functools
import gzip
import json
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.edge_agent.served import ARROW, JSON
from tests.faults.right import CUSTOM, JSON_SIZE, OCTETS, STREAM, Right
from tests.faults.wire import Request

_JUNK = (
    b"\x00", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x40", b"%00", b"../", b"%ff", b'"',
    b"{", b"[[[[", b"9" * 400, b"-1", b"1e999", b"-0.0", b"NaN", b"Infinity", b"null", b"\r\n", b"\r\n\r\n",
    "\ud83d".encode("utf-8", "surrogatepass"), "😀".encode(), b"\xc3\x28", b'"x":', b",", b"ARROW1",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, 5e-324, "", "a", "\u0000",
    "é" * 40, [], {}, [[]], [None], [1, 2, 3], [[1, 2, 3]] * 3, {"x": [1, 2, 3]}, {"": None}, [0.1] * 1000,
    "0" * 70_000,
)  # fmt: skip
_TEXTS = ("", "0", "-1", "1", "00", "x", "1e3", "9" * 30, "9" * 17, "é", "%", "*", "in.x", "..", "null", "a" * 9000)
_TYPES = (JSON, "application/json", CUSTOM, ARROW, STREAM, OCTETS, "text/plain", "", "x" * 300, "a/json; b=\xe9")
_NAMES = (
    "Host",
    "Connection",
    "Expect",
    "X-Request-Id",
    "traceparent",
    "X" * 200,
    "Transfer-Encoding",
    "a b",
    "Upgrade",
)
_OPTIONS = ("close", "100-continue", "h2c", f"00-{'a' * 32}-{'b' * 16}-01", "\xff", "a" * 20_000)
_PARAMETERS = (
    "dataset[]", "dataset.exclude[]", "dataset.separator", "limit", "after_seq", "pipeline", "model", "version", "x",
)  # fmt: skip
_METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO", "post")
_BOMB_BYTES = 256 << 20  # four times what a body may unpack to


@dataclass(frozen=True)
class Mutant:
    """A damaged request as bytes, whose it was, and what was done to it."""

    number: int
    right: Right
    done: tuple[str, ...]
    data: bytes


def mutant(rights: Sequence[Right], seed: int, number: int) -> Mutant:
    """The mutant of a number."""
    chance = random.Random(f"{seed}:{number}")
    right = chance.choice(rights)
    request, done = right.request, []
    for _ in range(1 if chance.random() < 0.6 else chance.randint(2, 4)):
        change = chance.choices(list(_CHANGES), weights=list(_CHANGES.values()))[0]
        request = change(request, chance)
        done.append(change.__name__.strip("_"))
    if chance.random() < 0.05:  # a body that another door takes
        request = replace(request, body=chance.choice(rights).request.body)
        done.append("body of another")
    data = request.encode()
    if chance.random() < 0.12:
        data = damaged(data, chance)
        done.append("bytes of the whole")
    if chance.random() < 0.05:
        data = chance.choice(rights).request.encode() + data
        done.append("behind a right one in the same packet")
    return Mutant(number, right, tuple(done), data)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One to eight places changed, cut out, doubled or filled."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at, how = chance.randrange(len(made) + 1), chance.random()
        if how < 0.3 and at < len(made):
            made[at] ^= 1 << chance.randrange(8)
        elif how < 0.5 and at < len(made):
            made[at] = chance.randrange(256)
        elif how < 0.6:
            made[at : at + 4] = chance.choice(_JUNK)
        elif how < 0.7:
            made[at:at] = chance.choice(_JUNK)
        elif how < 0.8:
            del made[at : at + chance.choice((1, 4, 8, 64))]
        elif how < 0.9:
            made[at:at] = made[at : at + chance.choice((1, 8, 64, 512))]
        else:
            made[at:at] = chance.randbytes(chance.choice((1, 4, 8, 64)))
    return bytes(made)


# Bodies


def _bytes(request: Request, chance: random.Random) -> Request:
    return replace(request, body=damaged(request.body, chance))


def _cut(request: Request, chance: random.Random) -> Request:
    return replace(request, body=request.body[: chance.randrange(len(request.body) + 1)])


def _grown(request: Request, chance: random.Random) -> Request:
    times = chance.choice((2, 3, 10, 100))
    filling = chance.choice((request.body * times, request.body + bytes(100_000), request.body + b" " * 100_000))
    return replace(request, body=filling[: 1 << 19])


def _deep(request: Request, chance: random.Random) -> Request:
    depth, opening = chance.choice((200, 1100, 5000, 5000, 100_000)), chance.choice((b"[", b'{"x":', b'[{"x":'))
    deep = opening * depth + (b"1" + b"]" * depth if opening == b"[" and chance.random() < 0.5 else b"")
    at = request.body.find(b"[") if chance.random() < 0.6 else -1
    return replace(request, body=request.body[:at] + deep + request.body[at + 1 :] if at >= 0 else deep)


def _json(request: Request, chance: random.Random) -> Request:
    """Some value in it is another one, a name is another name, or there twice."""
    text, size = _json_of(request)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _bytes(request, chance)
    for _ in range(chance.choice((1, 1, 2))):
        value = _replaced(value, chance)
    said = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    if chance.random() < 0.1:
        said = said.replace(b'"x":', b'"x": 1, "x":', 1)
    changed = replace(request, body=said + request.body[size:])
    return _with(changed, JSON_SIZE, str(len(said))) if size != len(request.body) else changed


def _json_of(request: Request) -> tuple[bytes, int]:
    size = request.header(JSON_SIZE)
    end = int(size) if size and size.isdigit() and 0 < int(size) <= len(request.body) else len(request.body)
    return request.body[:end], end


def _replaced(value: Any, chance: random.Random) -> Any:
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        how = chance.random()
        if how < 0.1:
            return value[:at] + value[at + 1 :]
        if how < 0.2:
            return value * 2
        return [*value[:at], _replaced(value[at], chance), *value[at + 1 :]]
    if isinstance(value, dict) and value and chance.random() < 0.85:
        name, how = chance.choice(list(value)), chance.random()
        rest = {key: each for key, each in value.items() if key != name}
        if how < 0.1:
            return rest
        if how < 0.2:
            return {**rest, chance.choice(("", "X", "z", name + " ", "data", "é")): value[name]}
        return {**value, name: _replaced(value[name], chance)}
    return chance.choice(_VALUES)


# Heads


def _with(request: Request, name: str, *values: str) -> Request:
    kept = tuple(pair for pair in request.headers if pair[0].lower() != name.lower())
    return replace(request, headers=(*kept, *((name, value) for value in values)))


def _typed(request: Request, chance: random.Random) -> Request:
    return _with(request, "Content-Type", *chance.choices(_TYPES, k=chance.choice((0, 1, 1, 1, 2))))


def _accepting(request: Request, chance: random.Random) -> Request:
    name = chance.choice(("Accept", "Accept-Encoding"))
    return _with(request, name, chance.choice((*_TYPES, "gzip", "deflate", "gzip, br", "*/*", "identity;q=0")))


def _sized(request: Request, chance: random.Random) -> Request:
    """A length that is not the body's."""
    near = str(max(0, len(request.body) + chance.choice((-8, -1, 1, 8, 1000))))
    return _with(request, "Content-Length", chance.choice((near, near, *_TEXTS[:9], f"{near}, {near}")))


def _json_sized(request: Request, chance: random.Random) -> Request:
    said = request.header(JSON_SIZE) or ""
    near = str(max(0, (int(said) if said.isdigit() and len(said) < 9 else 0) + chance.choice((-8, -1, 1, 8, 64))))
    return _with(request, JSON_SIZE, chance.choice((near, near, *_TEXTS)))


def _packed(request: Request, chance: random.Random) -> Request:
    """Packed, and what it says of it may be wrong; the packing may be damaged or cut."""
    body = chance.choice((gzip.compress, zlib.compress))(request.body)
    if chance.random() < 0.5:
        body = damaged(body, chance)
    if chance.random() < 0.2:
        body = body[: chance.randrange(len(body) + 1)]
    coding = chance.choice(("gzip", "gzip", "deflate", "deflate", "br", "identity", "gzip, gzip", ""))
    return _with(replace(request, body=body), "Content-Encoding", coding)


def _bomb(request: Request, chance: random.Random) -> Request:
    """A small body that unpacks to a very large one."""
    return _with(replace(request, body=_bomb_of(chance.choice((b"[", b" ", b"\0")))), "Content-Encoding", "gzip")


@functools.cache
def _bomb_of(filling: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    block = filling * (1 << 20)
    return b"".join([packer.compress(block) for _ in range(_BOMB_BYTES >> 20)]) + packer.flush()


def _chunked(request: Request, chance: random.Random) -> Request:
    body, step = b"", chance.choice((1, 7, 64, 4096)) if len(request.body) < 5000 else 4096
    for at in range(0, len(request.body), step):
        piece = request.body[at : at + step]
        body += b"%x\r\n%b\r\n" % (len(piece), piece)
    body += b"0\r\n\r\n"
    if chance.random() < 0.6:
        body = damaged(body, chance)
    said = chance.choice(("chunked", "chunked", "chunked", "chunked", "gzip, chunked", ""))
    return _with(replace(request, body=body), "Transfer-Encoding", said)


def _headed(request: Request, chance: random.Random) -> Request:
    """A header gone, doubled, or one more."""
    headers, how = list(request.headers), chance.random()
    if headers and how < 0.4:
        headers.pop(chance.randrange(len(headers)))
    elif headers and how < 0.6:
        headers.append(chance.choice(headers))
    else:
        added = chance.choice(_NAMES), chance.choice((*_OPTIONS, *_TEXTS))
        headers.insert(chance.randrange(len(headers) + 1), added)
    return replace(request, headers=tuple(headers))


def _targeted(request: Request, chance: random.Random) -> Request:
    """Another path or query."""
    path, _, query = request.target.partition("?")
    text = chance.choice(_TEXTS).replace("é", "%C3%A9")
    how = chance.random()
    if how < 0.5:
        query = f"{query}&{chance.choice(_PARAMETERS)}={text}".lstrip("&")
    elif how < 0.7:
        query = damaged(query.encode(), chance).decode("latin-1").replace(" ", "+").replace("\r\n", "")
    else:
        parts = path.split("/")
        parts[chance.randrange(1, len(parts))] = chance.choice((text, "demo", "texts", "%2f", "..", "\xff", "infer"))
        path = "/".join(parts)
    return replace(request, target=f"{path}?{query}" if query else path)


def _asked_otherwise(request: Request, chance: random.Random) -> Request:
    return replace(request, method=chance.choice(_METHODS))


_CHANGES: dict[Callable[[Request, random.Random], Request], float] = {
    _bytes: 24, _cut: 6, _grown: 3, _deep: 4, _json: 22, _typed: 5, _accepting: 3, _sized: 5, _json_sized: 4,
    _packed: 5, _bomb: 0.05, _chunked: 6, _headed: 6, _targeted: 6, _asked_otherwise: 2,
}  # fmt: skip
