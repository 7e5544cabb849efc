"""What a confined child cannot do: each attempt is tried free first, so that a refusal means something."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from runtimes.sandbox import Sandbox, accelerator_nodes, clean_environment, for_accelerators, level_of_this_kernel
from runtimes.shim.edgepack_worker import seccomp

LEVEL = level_of_this_kernel()
needs_all = pytest.mark.skipif(
    "landlock-" not in LEVEL or "seccomp" not in LEVEL, reason=f"this kernel offers {LEVEL} only"
)

CHILD = """
import ctypes, json, os, socket, sys, threading
def main(code, known):
    scope = {**json.loads(known), "call": call, **globals()}
    try:
        exec(code, scope)
    except (OSError, MemoryError, RuntimeError) as error:
        print("denied", type(error).__name__)
    else:
        print("done")
def call(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
if __name__ == "__main__":
    main(*sys.argv[1:])
"""

# each works when it is tried free
ATTEMPTS = {
    "read a file outside": "open(secret).read()",
    "read a file outside through a link": "os.symlink(secret, f'{own}/link'); open(f'{own}/link').read()",
    "read a file outside through a hard link": "os.link(secret, f'{own}/hard'); open(f'{own}/hard').read()",
    "list a folder outside": "os.listdir(outside)",
    "list the root of the file system": "os.listdir('/')",
    "read the list of users": "open('/etc/passwd').read()",
    "read the parent's environment": "open(f'/proc/{parent}/environ', 'rb').read()",
    "read the parent's memory map": "open(f'/proc/{parent}/maps').read()",
    "read through the parent's root": "open(f'/proc/{parent}/root{secret}').read()",
    "read the parent's open files": "os.listdir(f'/proc/{parent}/fd')",
    "write a file outside": "open(f'{outside}/new', 'w').write('x')",
    "change a file outside": "open(secret, 'a').write('x')",
    "cut a file outside": "os.truncate(f'{outside}/other', 0)",
    "delete a file outside": "os.unlink(f'{outside}/other')",
    "make a folder outside": "os.mkdir(f'{outside}/folder')",
    "move a file out": "open(f'{own}/mine', 'w').write('x'); os.rename(f'{own}/mine', f'{outside}/theirs')",
    "change the mode of a file outside": "os.chmod(secret, 0o777)",
    "change the times of a file outside": "os.utime(secret)",
    "write its own program": "open(shim, 'a').close()",
    "write more than the largest file": "open(f'{own}/big', 'wb').write(bytes(2 << 20))",
    "connect over TCP": "socket.create_connection(('127.0.0.1', tcp), 5)",
    "listen on TCP": "socket.socket().bind(('127.0.0.1', 0))",
    "send a datagram": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', tcp))",
    "connect to a unix socket": "socket.socket(socket.AF_UNIX).connect(unix)",
    "connect to an abstract unix socket": "socket.socket(socket.AF_UNIX).connect(chr(0) + abstract)",
    "reach a unix socket by a pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', dgram)",
    "start a program": "os.spawnv(os.P_WAIT, sys.executable, [sys.executable, '-c', '']) == 0 or os.open('', 0)",
    "become a program": "os.execv(sys.executable, [sys.executable, '-c', 'print(\"done\")'])",
    "fork": "os.fork() or os._exit(0)",
    "start a shell": "os.popen('echo').read() or os.open('', 0)",
    "signal the parent": "os.kill(parent, 0)",
    "signal the parent's thread": "call(tgkill, parent, parent, 0)",
    "queue a signal to the parent": "call(pidfd_open, parent, 0)",
    "trace the parent": "call(ptrace, 16, parent, 0, 0)",
    "read the parent's memory": "call(process_vm_readv, parent, 0, 0, 0, 0, 0)",
    "change the parent's limits": "call(prlimit64, parent, 7, 0, 0)",
    "change the parent's priority": "os.setpriority(os.PRIO_PROCESS, parent, 19)",
    "make a name space": "call(unshare, 0x10000000)",
    "make shared memory": "call(shmget, 4242, 4096, 0o1600)",
    "open a message queue": "call(msgget, 4242, 0o1600)",
    "set up a ring of system calls": "call(io_uring_setup, 4, ctypes.create_string_buffer(200))",
    "outlive its parent": "call(prctl, 1, 0, 0, 0, 0)",
    "take all memory": "x = [bytearray(64 << 20) for _ in range(8)]",
    "take memory by shared mappings": "import mmap; x = [mmap.mmap(-1, 256 << 20) for _ in range(64)]",
    "open files without end": "x = [open(os.devnull) for _ in range(400)]",
    "start threads without end": "wait = threading.Event().wait\n"
    "for _ in range(300): threading.Thread(target=wait, daemon=True).start()",
}
# what an unconfined process cannot do on some machines either, or what would stay
NOT_TRIED_FREE = {
    "make shared memory",
    "open a message queue",
    "change the parent's priority",
    "trace the parent",
    "set up a ring of system calls",
    "make a name space",
    "read the parent's memory",
    "take memory by shared mappings",
    "take all memory",
}


@pytest.fixture
def world(tmp_path):
    """A secret, sockets that listen, and the numbers of system calls here."""
    own, outside = tmp_path / "own", tmp_path / "outside"
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    outside.mkdir()
    for name in ("secret", "other"):
        (outside / name).write_text("s3cret")
    program = own / "program.py"
    program.write_text(CHILD)
    tcp = socket.create_server(("127.0.0.1", 0))
    unix, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    dgram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    unix.bind(f"{tmp_path}/u")
    dgram.bind(f"{tmp_path}/d")
    abstract.bind(f"\0edgepack-{os.getpid()}")
    for each in (unix, abstract):
        each.listen()
    column = seccomp._ARCHITECTURES[os.uname().machine][0]
    tables = (seccomp.NEVER, seccomp.BY_ARGUMENT)
    numbers = {name: both[column] for table in tables for name, both in table.items()}
    yield {
        **numbers,
        **{"own": str(own), "outside": str(outside), "secret": str(outside / "secret"), "parent": os.getpid()},
        **{"tcp": tcp.getsockname()[1], "unix": f"{tmp_path}/u", "dgram": f"{tmp_path}/d"},
        **{"abstract": f"edgepack-{os.getpid()}", "shim": str(outside / "other")},
    }
    for each in (tcp, unix, dgram, abstract):
        each.close()


def confined(world, code: str, **changes) -> str:
    own = Path(world["own"])
    said = {"write": (own,), "file_bytes": 1 << 20, "memory_bytes": 256 << 20, "address_bytes": 4 << 30, **changes}
    command = Sandbox(**said).command("program", [code, json.dumps(world)], [own])
    done = subprocess.run(command, env=clean_environment(own), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_all
@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_confined_child_cannot(world, what):
    said = confined(world, ATTEMPTS[what])
    assert said.startswith("denied"), said
    assert (Path(world["outside"]) / "secret").read_text() == "s3cret"
    assert (Path(world["outside"]) / "secret").stat().st_mode & 0o777 == 0o644


@needs_all
@pytest.mark.parametrize("what", sorted(ATTEMPTS.keys() - NOT_TRIED_FREE))
def test_without_a_sandbox_it_can(world, what):
    done = subprocess.run(
        [sys.executable, f"{world['own']}/program.py", ATTEMPTS[what], json.dumps(world)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=world["own"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
    )
    assert "done" in done.stdout, done.stdout + done.stderr


@needs_all
def test_a_child_can_do_what_models_do(world):
    code = (
        "import asyncio, concurrent.futures, ctypes, tempfile\n"
        "asyncio.run(asyncio.sleep(0.001))\n"
        "with concurrent.futures.ThreadPoolExecutor(4) as pool: assert sum(pool.map(abs, range(4))) == 6\n"
        "with tempfile.TemporaryFile() as file: file.write(b'x')\n"
        "with tempfile.TemporaryDirectory() as folder: open(f'{folder}/x', 'w').close()\n"
        "assert os.cpu_count() and len(os.sched_getaffinity(0))\n"
        "os.kill(os.getpid(), 0)\n"
        "assert open(__import__('inspect').__file__).read()\n"
    )
    assert confined(world, code) == "done"


@needs_all
def test_what_is_named_can_be_read_and_nothing_beside_it(world):
    outside = Path(world["outside"])
    assert confined(world, "open(secret).read()", read=(outside / "secret",)) == "done"
    assert confined(world, "open(f'{outside}/other').read()", read=(outside / "secret",)).startswith("denied")
    assert confined(world, "open(secret, 'w')", read=(outside,)).startswith("denied")


@needs_all
def test_a_child_with_programs_still_has_no_network_and_binds_what_it_starts(world):
    start = "import subprocess; ran = subprocess.run([sys.executable, '-I', '-S', '-c', {!r}], capture_output=True)"
    assert confined(world, start.format("") + "\nassert ran.returncode == 0", programs=True) == "done"
    for attempt in ("import socket; socket.socket()", f"open({world['secret']!r})"):
        code = start.format(attempt) + "\nassert b'PermissionError' in ran.stderr, ran"
        assert confined(world, code, programs=True) == "done"


@needs_all
def test_the_level_is_told_by_the_child_and_is_that_of_the_kernel(world):
    assert confined(world, f"assert sys.edgepack_sandbox == {LEVEL!r}, sys.edgepack_sandbox") == "done"


def test_a_kernel_without_landlock_and_seccomp_still_gives_limits(world):
    """The parts are independent: one that is missing is missing from the level, and the others hold."""
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[1], end=' '); print(sys.edgepack_sandbox)"
    own = Path(world["own"])
    faked = (
        "import sys, json\norder = json.loads(sys.argv[1])\nsys.path.insert(0, order['shim'])\n"
        "from edgepack_worker import landlock, seccomp\nlandlock.abi = lambda: 0\nseccomp.is_here = lambda: False\n"
        "from edgepack_worker.start import start\nstart(order)\n"
    )
    command = Sandbox(write=(own,)).command("program", [code, json.dumps(world)], [own])
    command[command.index("-c") + 1] = faked
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["0", "rlimits", "done"]


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/usr/bin/python3").exists(), reason="needs root and Python in /usr")
def test_root_becomes_nobody_where_nobody_can_read_what_is_needed_and_else_loses_its_capabilities(world):
    code = "print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "program.py").write_text(CHILD)
        found = []
        for drop_user in (True, False):
            sandbox = Sandbox(drop_user=drop_user)
            command = sandbox.command("program", [code, json.dumps(world)], [folder], "/usr/bin/python3")
            found.append(subprocess.run(command, capture_output=True, text=True, timeout=300).stdout.split())
    assert found == [["65534", "0" * 16, "done"], ["0", "0" * 16, "done"]]


def test_nothing_of_our_environment_is_inherited_but_time_zone_and_libraries(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEPACK_TOKEN", "s3cret")
    monkeypatch.setenv("TZ", "Europe/Vienna")
    found = clean_environment(tmp_path, {"OMP_NUM_THREADS": "1"})
    assert "s3cret" not in str(found)
    assert found["TZ"] == "Europe/Vienna"
    assert found["HOME"] == found["TMPDIR"] == str(tmp_path)


def test_a_machine_without_an_accelerator_gives_no_device_away():
    plain = Sandbox()
    wider = for_accelerators(plain)
    assert (wider == plain) == (not accelerator_nodes())
    assert wider.network is False
