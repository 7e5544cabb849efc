"""A small machine that follows stack and memo of a pickle with symbols in place of objects.

Reading "the last two strings" instead of the memo would mis-name globals that are used twice. joblib's files are the
same stream with the bytes of arrays between the opcodes.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any

from packager.pickles.symbols import ARRAY, Global, Made, Scan

MOST_OPCODES = 20_000_000
VERSION_KEY = "_sklearn_version"
_PIECE = 1 << 20


_MARK = object()


class Machine:
    """Follows one stream. Symbols stand for objects; values that names and states are made of are kept."""

    def __init__(self, file: IO[bytes], found: Scan) -> None:
        self._file, self._found = file, found
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Walk to STOP; returns the outermost symbol."""
        for opcode, arg, _ in pickletools.genops(self._file):
            self._found.opcodes += 1
            if self._found.opcodes > MOST_OPCODES:
                raise ValueError(f"it has more than {MOST_OPCODES} opcodes")
            if opcode.name == "STOP":
                return self._stack.pop()
            step = getattr(self, f"_op_{opcode.name.lower()}", None)
            if step is not None:
                step(arg)
            else:
                self._plain(opcode, arg)
        raise ValueError("it has no end")

    def _plain(self, opcode: Any, arg: Any) -> None:
        """Opcodes that push one value, and the few that leave the stack as it is."""
        if opcode.name in ("FRAME", "READONLY_BUFFER"):
            return
        if opcode.stack_before:
            raise ValueError(f"it has the unknown opcode {opcode.name}")
        self._stack.append(arg if isinstance(arg, (str, int, float)) else None)

    def _since_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("it has an end without a beginning")
        taken = self._stack[at + 1 :]
        del self._stack[at:]
        return taken

    def _op_proto(self, arg: int) -> None:
        self._found.protocol = max(arg, self._found.protocol)

    def _op_mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def _op_newtrue(self, _: Any) -> None:
        self._stack.append(True)

    def _op_newfalse(self, _: Any) -> None:
        self._stack.append(False)

    def _op_pop(self, _: Any) -> None:
        self._stack.pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _op_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _op_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _op_put(self, arg: int) -> None:
        self._memo[arg] = self._stack[-1]

    _op_binput = _op_long_binput = _op_put

    def _op_get(self, arg: int) -> None:
        self._stack.append(self._memo[arg])

    _op_binget = _op_long_binget = _op_get

    def _op_global(self, arg: str) -> None:
        module, _, name = arg.partition(" ")
        self._name(module, name)

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            self._found.odd.append("a name that is computed while loading")
            self._stack.append(None)
            return
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        named = Global(module, name)
        self._found.globals.add(named)
        self._stack.append(named)

    def _op_inst(self, arg: str) -> None:
        args = self._since_mark()
        self._op_global(arg)
        self._stack.append(Made(self._stack.pop(), args))

    def _op_obj(self, _: Any) -> None:
        what, *args = self._since_mark()
        self._stack.append(Made(what, args))

    def _op_reduce(self, _: Any) -> None:
        args, what = self._stack.pop(), self._stack.pop()
        self._stack.append(Made(what, args))

    _op_newobj = _op_reduce

    def _op_newobj_ex(self, _: Any) -> None:
        _kwargs, args, what = self._stack.pop(), self._stack.pop(), self._stack.pop()
        self._stack.append(Made(what, args))

    def _op_build(self, _: Any) -> None:
        state = self._stack.pop()
        made = self._stack[-1]
        if isinstance(made, Made):
            made.state = state
            if made.what == Global(*ARRAY):
                self._skip_array(state)

    def _odd(self, _: Any) -> None:
        self._found.odd.append("an object kept outside the file")
        self._stack.append(None)

    _op_persid = _op_ext1 = _op_ext2 = _op_ext4 = _op_next_buffer = _odd

    def _op_binpersid(self, _: Any) -> None:
        self._stack.pop()
        self._odd(None)

    def _op_empty_tuple(self, _: Any) -> None:
        self._stack.append(())

    def _op_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _op_tuple1(self, _: Any) -> None:
        self._last(1)

    def _op_tuple2(self, _: Any) -> None:
        self._last(2)

    def _op_tuple3(self, _: Any) -> None:
        self._last(3)

    def _last(self, count: int) -> None:
        taken = tuple(self._stack[-count:])
        if len(taken) != count:
            raise ValueError("it takes more than there is")
        del self._stack[-count:]
        self._stack.append(taken)

    def _op_empty_list(self, _: Any) -> None:
        self._stack.append([])

    def _op_list(self, _: Any) -> None:
        self._stack.append(self._since_mark())

    def _op_append(self, _: Any) -> None:
        self._stack.pop()

    def _op_appends(self, _: Any) -> None:
        self._since_mark()

    _op_additems = _op_appends

    def _op_empty_set(self, _: Any) -> None:
        self._stack.append(None)

    def _op_frozenset(self, _: Any) -> None:
        self._since_mark()
        self._stack.append(None)

    def _op_empty_dict(self, _: Any) -> None:
        self._stack.append({})

    def _op_dict(self, _: Any) -> None:
        taken = self._since_mark()
        self._stack.append({})
        self._fill(taken)

    def _op_setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._fill([key, value])

    def _op_setitems(self, _: Any) -> None:
        self._fill(self._since_mark())

    def _fill(self, taken: list[Any]) -> None:
        """Keep what has a name: the states of objects are read by it."""
        into = self._stack[-1]
        for key, value in zip(taken[::2], taken[1::2], strict=True):
            if isinstance(key, str) and isinstance(into, dict):
                into[key] = value
                if key == VERSION_KEY and isinstance(value, str):
                    self._found.versions.add(ascii(value)[1:-1][:40])

    def _skip_array(self, state: Any) -> None:
        """The bytes of an array lie in the stream: a padding where there is one, then as many as shape and type say."""
        dtype, shape = state["dtype"], state["shape"]
        if _is_object(dtype):
            Machine(self._file, self._found).run()
            return
        count = 1
        for size in shape:
            count *= size
        if state.get("numpy_array_alignment_bytes") is not None:
            _skip(self._file, _exactly(self._file, 1)[0])
        _skip(self._file, count * _item_bytes(dtype))


def _is_object(dtype: Made) -> bool:
    return str(dtype.args[0]).startswith("O")


def _item_bytes(dtype: Made) -> int:
    code = str(dtype.args[0])
    if not isinstance(dtype.what, Global) or dtype.what.name != "dtype" or not code[1:].isdigit():
        raise ValueError(f"it has an array of the unknown type {code[:40]!r}")
    return int(code[1:]) * (4 if code[0] == "U" else 1)


def _skip(file: IO[bytes], count: int) -> None:
    for piece in _pieces(count):
        _exactly(file, piece)


def _pieces(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, _PIECE)
        count -= _PIECE


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("it ends in the middle of an array")
    return data
