"""`Volume`: an ext4 file system in a file, whose power can be cut at any moment.

The cut is the kernel's own (`FS_IOC_SHUTDOWN` without a flush of the journal, as in xfstests' shutdown group): from
that call on nothing reaches the disk any more, and what was not synced before is gone when the volume is mounted again.
It needs root and a loop device. What it does not show: a disk that loses what it said it had flushed.

The volume is mounted in a name space of its own. Elsewhere, whoever makes a mount name space at that time (a sandbox, a
container) would keep a copy of the mount, and the file system alive behind our back while it is mounted anew.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
import time
from pathlib import Path

_SHUTDOWN = 0x8004587D  # FS_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_NO_LOG_FLUSH = struct.pack("I", 2)  # EXT4_GOING_FLAGS_NOLOGFLUSH
_FLUSH_BUFFERS = 0x1261  # BLKFLSBUF: write what is due, forget the rest
_NEW_MOUNTS = 0x00020000  # CLONE_NEWNS
_MENDED = 1  # e2fsck's exit code when the journal was replayed or an orphan removed; 4 and above are faults
_PATH = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}


class Volume:
    """One file system in `folder`, mounted at `root`; use as a context manager."""

    def __init__(self, folder: Path, size_bytes: int = 192 << 20) -> None:
        self.root = folder / "mounted"
        self._image = folder / "disk.img"
        self._size = size_bytes
        self._device: str | None = None
        self._handle: int | None = None
        self._is_mounted = False

    def __enter__(self) -> Volume:
        _go_apart()
        self.root.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(self._size)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        try:
            self.mount()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        if self._is_mounted:
            _run("umount", "-l", str(self.root))
            self._is_mounted = False
        self._detach()

    def mount(self) -> None:
        """Attach and mount it; the kernel replays the journal."""
        self._device = _run("losetup", "--find", "--show", str(self._image)).strip()
        self._empty_cache()  # a device that was another file's a moment ago may still know that one's blocks
        _run("mount", "-t", "ext4", self._device, str(self.root))
        self._is_mounted = True
        self._handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)

    def cut(self) -> None:
        """The power goes. Whoever has a file open there gets errors from now on."""
        assert self._handle is not None, "not mounted"
        fcntl.ioctl(self._handle, _SHUTDOWN, _NO_LOG_FLUSH)

    def unmount(self, seconds: float = 60) -> None:
        """Take it away, once every process that used it has ended."""
        assert self._handle is not None, "not mounted"
        os.close(self._handle)
        self._handle = None
        deadline = time.monotonic() + seconds
        while True:
            try:
                _run("umount", str(self.root))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self._is_mounted = False
        self._detach()

    def _detach(self, seconds: float = 60) -> None:
        """Let go of the loop device, and see that it is gone: two devices on one file would overwrite each other."""
        if self._device is None:
            return
        self._empty_cache()
        _run("losetup", "-d", self._device)
        backing = Path("/sys/block") / Path(self._device).name / "loop" / "backing_file"
        deadline = time.monotonic() + seconds
        while backing.exists() and backing.read_text().strip() == str(self._image):
            if time.monotonic() > deadline:
                raise OSError(f"{self._device} stays in use after its file system was unmounted")
            time.sleep(0.01)
        self._device = None

    def _empty_cache(self) -> None:
        assert self._device is not None
        handle = os.open(self._device, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _FLUSH_BUFFERS, 0)
        finally:
            os.close(handle)

    def check(self) -> None:
        """Let e2fsck replay the journal and look at everything, unmounted. Raises OSError for what is not sound."""
        _run("e2fsck", "-f", "-p", str(self._image), allowed=_MENDED)

    def remount(self, *, checked: bool) -> None:
        """Back after a cut: the journal is replayed by e2fsck, which looks at all else too, or by the kernel."""
        self.unmount()
        if checked:
            self.check()
        self.mount()


@functools.cache
def why_not() -> str | None:
    """Why no power can be cut on this machine, or None."""
    if os.geteuid() != 0:
        return "needs root: a file system is mounted and cut off"
    programs = ("mkfs.ext4", "e2fsck", "losetup", "mount")
    missing = [name for name in programs if not shutil.which(name, path=_PATH["PATH"])]
    if missing:
        return f"needs {', '.join(missing)}: packages e2fsprogs and mount"
    try:
        with tempfile.TemporaryDirectory(prefix="edgepack-volume-") as folder, Volume(Path(folder), 8 << 20) as volume:
            volume.cut()
            volume.remount(checked=True)
    except OSError as error:
        return f"this machine mounts no loop device, or cuts none off: {error}"
    return None


@functools.cache
def _go_apart() -> None:
    """Give this thread, and what it starts from now on, mounts of their own."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no mount name space of one's own")
    _run("mount", "--make-rprivate", "/")


def _run(*command: str, allowed: int = 0) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=_PATH, timeout=300)
    if not 0 <= done.returncode <= allowed:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
        raise OSError(f"{command[0]} ended with {done.returncode}: {said[-1]}")
    return done.stdout
