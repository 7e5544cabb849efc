"""Images without an engine: their files in a folder, and the image's own command run there as an engine would."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from examples.demo.programs import free_port
from oci.image import Image

# Read-only root, a writable volume, no capabilities but those chroot itself needs: what `docker run --read-only` gives.
_RUN = """
set -e
mount --bind "$ROOT" "$ROOT"
mount -t tmpfs none "$ROOT/persist" && chown 65532:65532 "$ROOT/persist"
mount -t proc none "$ROOT/proc" && mount --bind /dev "$ROOT/dev"
mount -o remount,ro,bind "$ROOT" "$ROOT"
exec "$@"
"""


def unpack(image: Image, folder: Path) -> Path:
    """Lay the layers over each other in a folder."""
    for layer in image.layers:
        with layer.open() as packed, gzip.open(packed) as raw, tarfile.open(fileobj=raw, mode="r|") as tar:
            tar.extractall(folder, filter="fully_trusted")
    folder.chmod(0o755)  # it becomes `/`, which the image's user must be able to enter
    return folder


def why_not_chroot() -> str | None:
    """Why an image cannot be run here, or None."""
    if os.geteuid():
        return "running an image's files needs root: chroot and mount"
    if not shutil.which("unshare") or not shutil.which("chroot"):
        return "running an image's files needs the programs unshare and chroot"
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return "this machine gives no mount name spaces" if tried.returncode else None


@contextlib.contextmanager
def serving(image: Image, root: Path, timeout_s: float = 90) -> Iterator[str]:
    """Run the image's entry point on its files as its own user; gives the agent's address."""
    with image.config.open() as file:
        config = json.load(file)["config"]
    port = free_port()
    environ = dict(line.partition("=")[::2] for line in config["Env"])
    environ.update(EDGEPACK_HOST="127.0.0.1", EDGEPACK_PORT=str(port), ROOT=str(root))
    user = config["User"]
    command = ["/usr/bin/env", "-u", "ROOT", shutil.which("chroot"), f"--userspec={user}", str(root)]
    command += [*config["Entrypoint"], *config["Cmd"]]
    shell = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", _RUN, "run", *command]
    process = subprocess.Popen(
        shell, env={**environ, "PATH": os.environ["PATH"]}, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, timeout_s)
        yield url
    finally:
        # the whole group: --kill-child's signal is lost when chroot changes the user
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _wait(url: str, process: subprocess.Popen, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the image ended with {process.returncode}: {process.stderr.read()}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=10):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the image was not ready in time")
