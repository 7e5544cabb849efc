"""Landlock by bare system calls (kernel documentation, "Landlock: unprivileged access control").

Every right the kernel knows is taken away, then those wanted are given back below single paths. Rights of later
versions of its interface are used where the kernel has them.
"""

from __future__ import annotations

import ctypes
import os
import stat

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on x86_64 and aarch64
_VERSION_FLAG, _PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV = 1 << 14, 1 << 15
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_ALL_UP_TO_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_BIND_TCP, _CONNECT_TCP = 1, 2  # from version 4
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 1, 2  # from version 6
_MAKE_NODES = (1 << 6) | (1 << 11)  # character and block devices: given to nobody

libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("folder", ctypes.c_int32))


def abi() -> int:
    """The version of the kernel's interface; 0 where there is none."""
    version: int = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    return max(0, version)


def restrict(read: list[str], write: list[str], devices: list[str], *, network: bool, programs: bool) -> int:
    """Bind the calling thread and all it starts. Returns the version in force, 0 where there is no Landlock."""
    version = abi()
    if not version:
        return 0
    handled = _ALL_UP_TO_ABI[max(key for key in _ALL_UP_TO_ABI if key <= version)]
    tcp = _BIND_TCP | _CONNECT_TCP if version >= 4 and not network else 0
    scoped = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if version >= 6 else 0
    rules = _Ruleset(handled, tcp, scoped)
    size = 8 if version < 4 else 16 if version < 6 else 24
    handle = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if handle < 0:
        return 0
    try:
        for path in read:
            _allow(handle, path, handled & (programs * _EXECUTE | _READ_FILE | _READ_DIR))
        for path in write:
            _allow(handle, path, handled & ~_EXECUTE & ~_IOCTL_DEV & ~_MAKE_NODES)
        for path in ["/dev/null", *devices]:
            _allow(handle, path, handled & (_READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV))
        return 0 if libc.syscall(_RESTRICT_SELF, handle, 0) else version
    finally:
        os.close(handle)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not there, or not ours to see: then it is not readable either
        return
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            rights &= _FILE_RIGHTS
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(_Beneath(rights, target)), 0)
    finally:
        os.close(target)
