"""The registries that one suite runs over. Another one joins by one line in REGISTRIES."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.demo.programs import free_port
from oci.credentials import Bearer, Credentials
from oci.registry import Registry
from tests.fakes.registry import FakeRegistry

# bcrypt of "correct horse", which is all that the htpasswd of a docker-registry takes
_HTPASSWD = "publisher:$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e\n"


@dataclass(frozen=True)
class Place:
    """A registry that runs: its host, who may push, and what lies on its disk where there is one."""

    host: str
    auth: Credentials | None = None
    folder: Path | None = None

    def client(self, **settings: object) -> Registry:
        """A client that does not wait between attempts."""
        return Registry(self.host, self.auth, sleep=lambda seconds: None, **settings)  # type: ignore[arg-type]


def need(tool: str) -> str:
    """The path of a program, or a skip that says what to install."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed: apt-get install {tool}")
    return found


@contextlib.contextmanager
def docker_registry(folder: Path, auth: bool = False, settings: str = "") -> Iterator[Place]:
    """Debian's docker-registry on a free port, its blobs under `folder`; ended by the process that was started here.

    `auth` lets in one publisher with a password; `settings` are further lines of its configuration.
    """
    program = need("docker-registry")
    host = f"127.0.0.1:{free_port()}"
    (folder / "htpasswd").write_text(_HTPASSWD)
    htpasswd = f"auth: {{htpasswd: {{realm: test, path: {folder / 'htpasswd'}}}}}\n" if auth else ""
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: {host}, secret: test}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'store'}}}}}\n{htpasswd}{settings}"
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(host, process, folder / "log")
        yield Place(host, folder=folder / "store")
    finally:
        process.terminate()
        process.wait(60)


def _wait_for(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection(host, timeout=5)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    pytest.fail(f"docker-registry did not start: {log.read_text()[-500:]}")


@contextlib.contextmanager
def fake_registry(folder: Path) -> Iterator[Place]:
    """The fake in its honest mode."""
    with FakeRegistry() as fake:
        yield Place(fake.host)


@contextlib.contextmanager
def hub_registry(folder: Path) -> Iterator[Place]:
    """The /v2/ of our own hub, with its admin as publisher."""
    from tests.hub.conftest import Clock, RunningHub

    hub = RunningHub(folder, Clock())
    try:
        yield Place(hub.url.partition("//")[2], Bearer(hub.hub.admin_token))
    finally:
        hub.close()


REGISTRIES: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "docker-registry": docker_registry,
    "fake": fake_registry,
    "hub": hub_registry,
}


@pytest.fixture(scope="session", params=list(REGISTRIES))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with REGISTRIES[request.param](tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A real registry that lets in `publisher` with `correct horse` only."""
    with docker_registry(tmp_path_factory.mktemp("guarded"), auth=True) as running:
        yield running
