"""Binds this process for good, in the one order that works: what comes later may not be needed by what came before.

    session → limits → user and capabilities → no new privileges → Landlock → seccomp

It must run before anything starts a thread: Landlock and seccomp bind the calling thread and those it starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import sysconfig
from typing import Any

from . import landlock, seccomp

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 24, 38, 47
_AMBIENT_CLEAR_ALL = 4
_CAPABILITIES_V3 = 0x20080522
_READ_ALL = 1 << 2  # CAP_DAC_READ_SEARCH
_NOBODY = 65534
_SYSTEM = (
    *("/usr/lib", "/lib", "/usr/lib64", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo"),
    *("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"),
    # how many processors there are, and how many of them are ours: what thread pools ask for
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/self", "/sys/devices/system/cpu", "/sys/fs/cgroup"),
)

libc = ctypes.CDLL(None, use_errno=True)


def confine(policy: dict[str, Any]) -> str:
    """Bind this process to a policy (the fields of `runtimes.sandbox.Sandbox`); returns the level reached."""
    with contextlib.suppress(PermissionError):  # a leader of its group already
        os.setsid()
    readable = _readable(policy)
    _limit(policy)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(str(policy["oom_score"]))
    _leave_root(readable, drop_user=policy["drop_user"])
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # a change of user takes /proc/self away, which thread pools read to find their libraries; no core file is written
    libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    # after the change of user, which would undo it
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    parts = []
    abi = landlock.restrict(
        readable, policy["write"], policy["devices"], network=policy["network"], programs=policy["programs"]
    )
    if abi:
        parts.append(f"landlock-{abi}")
    if seccomp.restrict(network=policy["network"], programs=policy["programs"]):
        parts.append("seccomp")
    return "+".join([*parts, "rlimits"])


def level_here() -> str:
    """The level a child would reach on this kernel, found out without binding anything."""
    abi = landlock.abi()
    parts = [f"landlock-{abi}"] if abi else []
    return "+".join([*parts, *(["seccomp"] if seccomp.is_here() else []), "rlimits"])


def _readable(policy: dict[str, Any]) -> list[str]:
    interpreter = [
        os.path.realpath(sys.executable),
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib")),
        # where a shared libpython lies
        os.path.join(sys.base_exec_prefix, "lib") if sys.base_exec_prefix != "/usr" else "",  # noqa: PTH118
    ]
    return [path for path in (*_SYSTEM, *interpreter, *policy["read"]) if path and os.path.exists(path)]  # noqa: PTH110


def _limit(policy: dict[str, Any]) -> None:
    """Set the limits; each only ever goes down, so that what the parent was given holds as well."""
    limits = {
        resource.RLIMIT_AS: policy["address_bytes"],
        resource.RLIMIT_DATA: policy["memory_bytes"],
        resource.RLIMIT_CPU: policy["cpu_s"],
        resource.RLIMIT_NOFILE: policy["open_files"],
        # counted for the whole user, whatever else runs as it: on top of what runs on the machine now
        resource.RLIMIT_NPROC: _running() + policy["processes"],
        resource.RLIMIT_FSIZE: policy["file_bytes"],
        resource.RLIMIT_CORE: 0,
    }
    for limit, most in limits.items():
        if most is not None:
            hard = resource.getrlimit(limit)[1]
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(limit, (bound, bound))


def _running() -> int:
    """How many threads there are on this machine (proc(5), "/proc/loadavg")."""
    try:
        with open("/proc/loadavg") as file:  # noqa: PTH123
            return int(file.read().split()[3].partition("/")[2])
    except OSError:
        return 0


def _leave_root(needed: list[str], *, drop_user: bool) -> None:
    """As root: become nobody where nobody can read all that is needed, and give up capabilities."""
    if os.geteuid() != 0:
        return
    if drop_user and _is_open_to_nobody(needed):
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    _set_capabilities(effective=0, permitted=_READ_ALL)
    # another user's home, as under sudo: reading stays allowed then, within what Landlock leaves
    kept = 0 if _can_read(needed) else _READ_ALL
    _set_capabilities(effective=kept, permitted=kept)


def _set_capabilities(*, effective: int, permitted: int) -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    libc.capset(header, (ctypes.c_uint32 * 6)(effective, permitted, 0, 0, 0, 0))


def _can_read(paths: list[str]) -> bool:
    return all(os.access(path, os.R_OK, effective_ids=True) for path in paths if not path.startswith(("/proc", "/sys")))


def _is_open_to_nobody(paths: list[str]) -> bool:
    groups = os.getgroups()
    try:
        os.setgroups([])
        os.setegid(_NOBODY)
        os.seteuid(_NOBODY)
        return _can_read(paths)
    except PermissionError:  # root without the capability to become anybody
        return False
    finally:
        with contextlib.suppress(PermissionError):
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
