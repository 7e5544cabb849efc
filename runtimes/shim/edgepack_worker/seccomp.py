"""A seccomp filter in classic BPF (kernel documentation, "Seccomp BPF"), built for the process that loads it.

It refuses with EPERM what no model needs: sockets, programs, other processes, mounts, clocks, owners and modes of
files. All else passes: engines use too many calls for a list of what is allowed, and Landlock holds the files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import Any

from .system_calls import BY_ARGUMENT, NETWORK, NEVER, PROGRAMS

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2
_ALLOW, _REFUSE, _ABSENT, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS, 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_CLONE_THREAD, _AF_UNIX, _SOCK_STREAM, _SOCK_TYPE = 0x10000, 1, 1, 0xF
_OWNERS_OF_SIGNALS = (8, 10, 15)  # fcntl: F_SETOWN, F_SETSIG, F_SETOWN_EX
_IOCTLS = (0x8901, 0x8902, 0x5412, 0x541C)  # FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX
_PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)

Code = list[bytes]
Numbers = dict[str, Any]  # two numbers, or None where a processor has no such call


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("code", ctypes.c_void_p))


def is_here() -> bool:
    """Whether this kernel filters, on a processor that we have numbers for."""
    return platform.machine() in _ARCHITECTURES and libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0


def restrict(*, network: bool, programs: bool) -> bool:
    """Load the filter for the calling thread and all it starts. Returns whether it is in force."""
    if not is_here():
        return False
    code = b"".join(_filter(*_ARCHITECTURES[platform.machine()], network=network, programs=programs))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    refused: int = libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0)
    return not refused


def _filter(column: int, architecture: int, *, network: bool, programs: bool) -> Code:
    code = [
        _do(_LOAD, _ARCHITECTURE_AT),
        _jump(_EQUAL, architecture, 1, 0),
        _do(_RETURN, _KILL),
        _do(_LOAD, _NUMBER_AT),
        _jump(_AT_LEAST, _X32, 0, 1),
        _do(_RETURN, _REFUSE),
    ]
    groups: list[Numbers] = [NEVER, *([] if network else [NETWORK]), *([] if programs else [PROGRAMS])]
    for group in groups:
        code += _refused(group, column)
    for name, body in _by_argument(network=network, programs=programs).items():
        number = BY_ARGUMENT[name][column]
        if number is not None:
            code += [_jump(_EQUAL, number, 0, len(body)), *body]
    return [*code, _do(_RETURN, _ALLOW)]


def _refused(group: Numbers, column: int) -> Code:
    numbers = [each[column] for each in group.values()]
    return [part for number in numbers if number is not None for part in _refusal(number)]


def _refusal(number: int) -> Code:
    return [_jump(_EQUAL, number, 0, 1), _do(_RETURN, _REFUSE)]


def _by_argument(*, network: bool, programs: bool) -> dict[str, Code]:
    """What is decided by arguments: a piece that ends in a verdict, for each call."""
    me = os.getpid()
    rules = {
        "fcntl": _unless(1, _OWNERS_OF_SIGNALS),
        "ioctl": _unless(1, _IOCTLS),
        **{f"sched_set{what}": _only(0, (0, me)) for what in ("affinity", "scheduler", "param", "attr")},
    }
    if not network:
        rules["socketpair"] = [
            *(_load_low(0), _jump(_EQUAL, _AF_UNIX, 1, 0), _do(_RETURN, _REFUSE)),
            # a datagram socket could be pointed at any other by its path
            *(_load_low(1), _do(_AND, _SOCK_TYPE), _jump(_EQUAL, _SOCK_STREAM, 1, 0)),
            *(_do(_RETURN, _REFUSE), _do(_RETURN, _ALLOW)),
        ]
        rules["sendto"] = _only(4, (0,))
    if not programs:
        # glibc turns to clone, whose flags can be seen, where clone3 is absent
        rules["clone3"] = [_do(_RETURN, _ABSENT)]
        rules["clone"] = [
            *(_load_low(0), _jump(_ANY_BIT, _CLONE_THREAD, 1, 0)),
            *(_do(_RETURN, _REFUSE), _do(_RETURN, _ALLOW)),
        ]
        rules["prlimit64"] = _only(0, (0, me))
        rules["prctl"] = _unless(0, (_PR_SET_PDEATHSIG,))
        for name in ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"):
            rules[name] = _only(0, (me,))
    return rules


def _only(argument: int, values: Sequence[int]) -> Code:
    """Allow these values of an argument. The upper half is looked at too: an address may have an empty lower one."""
    upper = [_do(_LOAD, _ARGUMENTS_AT + 8 * argument + 4), _jump(_EQUAL, 0, 1, 0), _do(_RETURN, _REFUSE)]
    return [*upper, _load_low(argument), *_matching(values, _ALLOW), _do(_RETURN, _REFUSE)]


def _unless(argument: int, values: Sequence[int]) -> Code:
    """Refuse these values of an argument, of which the kernel reads the lower half."""
    return [_load_low(argument), *_matching(values, _REFUSE), _do(_RETURN, _ALLOW)]


def _matching(values: Sequence[int], verdict: int) -> Code:
    return [part for value in values for part in (_jump(_EQUAL, value, 0, 1), _do(_RETURN, verdict))]


def _load_low(argument: int) -> bytes:
    return _do(_LOAD, _ARGUMENTS_AT + 8 * argument)


def _do(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, when_true: int, when_false: int) -> bytes:
    return struct.pack("=HBBI", code, when_true, when_false, value)
