"""The filter's own verdicts, on both processors: its code is run here as the kernel would run it."""

from __future__ import annotations

import os
import struct

import pytest

from runtimes.shim.edgepack_worker import seccomp
from runtimes.shim.edgepack_worker.system_calls import BY_ARGUMENT, NETWORK, NEVER, PROGRAMS

ALLOW, REFUSE, ABSENT, KILL = seccomp._ALLOW, seccomp._REFUSE, seccomp._ABSENT, seccomp._KILL
PLAIN = {
    "x86_64": {"read": 0, "mmap": 9, "futex": 202, "openat": 257},
    "aarch64": {"read": 63, "mmap": 222, "futex": 98},
}
ME = os.getpid()


def verdict(code: list[bytes], number: int, architecture: int, *arguments: int) -> int:
    """Classic BPF over the kernel's `seccomp_data` (little endian)."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(value & (1 << 64) - 1 for value in padded))
    at, register = 0, 0
    while True:
        operation, if_true, if_false, value = struct.unpack("=HBBI", code[at])
        at += 1
        if operation == seccomp._LOAD:
            register = struct.unpack_from("<I", data, value)[0]
        elif operation == seccomp._AND:
            register &= value
        elif operation == seccomp._RETURN:
            return value
        else:
            tests = {
                seccomp._EQUAL: register == value,
                seccomp._AT_LEAST: register >= value,
                seccomp._ANY_BIT: bool(register & value),
            }
            at += if_true if tests[operation] else if_false


@pytest.fixture(params=sorted(seccomp._ARCHITECTURES))
def judge(request):
    column, architecture = seccomp._ARCHITECTURES[request.param]

    def make(network=False, programs=False):
        code = seccomp._filter(column, architecture, network=network, programs=programs)
        assert len(code) < 4096  # BPF_MAXINSNS

        def say(name, *arguments):
            tables = (NEVER, NETWORK, PROGRAMS, BY_ARGUMENT)
            number = next((t[name][column] for t in tables if name in t), PLAIN[request.param].get(name))
            return None if number is None else verdict(code, number, architecture, *arguments)

        say.code, say.architecture, say.plain = code, architecture, PLAIN[request.param]
        return say

    return make


def test_what_every_program_needs_passes(judge):
    say = judge()
    assert {say(name) for name in say.plain} == {ALLOW}


def test_what_no_model_needs_is_refused_whatever_is_granted(judge):
    for say in (judge(), judge(network=True, programs=True)):
        assert {say(name) for name in NEVER} - {None} == {REFUSE}


def test_network_and_programs_are_granted_one_by_one(judge):
    assert {judge()(name) for name in (*NETWORK, *PROGRAMS)} - {None} == {REFUSE}
    assert {judge(network=True)(name) for name in NETWORK} == {ALLOW}
    assert {judge(network=True)(name) for name in PROGRAMS} - {None} == {REFUSE}
    assert {judge(programs=True)(name) for name in PROGRAMS} - {None} == {ALLOW}


def test_threads_may_start_and_processes_may_not(judge):
    say = judge()
    assert say("clone", 0x3D0F00) == ALLOW  # the flags of pthread_create
    assert say("clone", 17) == REFUSE  # SIGCHLD alone: fork
    assert say("clone3") == ABSENT
    assert judge(programs=True)("clone", 17) == ALLOW


def test_pairs_of_stream_sockets_alone_can_be_made(judge):
    say = judge()
    assert say("socketpair", 1, 1 | 0o2000000) == ALLOW  # AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC
    assert say("socketpair", 1, 2) == say("socketpair", 1, 5) == say("socketpair", 2, 1) == REFUSE
    assert say("sendto", 3, 0, 1, 0, 0) == ALLOW
    assert say("sendto", 3, 0, 1, 0, 0x7FFF0000) == say("sendto", 3, 0, 1, 0, 1 << 40) == REFUSE


def test_only_itself_can_be_signalled_limited_or_moved(judge):
    say = judge()
    for name in ("kill", "tgkill", "rt_sigqueueinfo", "prlimit64", "sched_setaffinity"):
        assert (name, say(name, ME)) == (name, ALLOW)
        assert (name, say(name, 1)) == (name, REFUSE)
        assert (name, say(name, -1)) == (name, REFUSE)
    assert say("prlimit64", 0) == say("sched_setaffinity", 0) == ALLOW
    assert say("kill", 0) == REFUSE  # the whole process group


def test_signals_by_way_of_files_and_terminals_are_refused(judge):
    say = judge()
    assert say("fcntl", 3, 1) == ALLOW
    assert {say("fcntl", 3, command) for command in (8, 10, 15)} == {REFUSE}
    assert say("ioctl", 3, 0x5401) == ALLOW
    assert {say("ioctl", 3, command) for command in (0x8901, 0x8902, 0x5412, 0x541C)} == {REFUSE}
    assert say("ioctl", 3, 0x5412 | 1 << 32) == REFUSE  # the kernel reads the lower half


def test_calls_of_another_architecture_end_the_process_and_of_x32_are_refused(judge):
    say = judge()
    assert verdict(say.code, 0, 0x40000003) == KILL  # i386
    assert verdict(say.code, 0x40000000, say.architecture) == REFUSE
