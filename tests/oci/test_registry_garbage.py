"""What answers at a registry's address and is none: a page of a network's login portal, another protocol, nothing."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from edgepack.errors import BadInput, EdgepackError, NotTrusted, Unreachable
from oci.registry import Registry
from oci.validate import validate
from tests.oci.make_images import ONE

PAGE = b"<html><body>Welcome to the plant's guest network. Log in to go on.</body></html>"
PORTAL = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


@contextlib.contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """Give each connection one answer, whatever it asked; the host."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(ConnectionError):
                        connection.sendall(answer(whole(connection)))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def whole(connection: socket.socket) -> bytes:
    """A request with its body: who closes before it has come resets the connection, and with it the answer."""
    data, size = b"", 0
    while not size or len(data) < size:
        piece = connection.recv(1 << 16)
        if not piece:
            return data
        data += piece
        head, end, _ = data.partition(b"\r\n\r\n")
        if end:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            size = len(head) + 4 + (int(length[1]) if length else 0)
    return data


def portal(asked: bytes) -> bytes:
    return PORTAL % (len(PAGE), b"" if asked.startswith(b"HEAD") else PAGE)


def client(host: str) -> Registry:
    return Registry(host, sleep=lambda seconds: None)


def test_a_login_portal_is_no_registry_that_has_everything(tmp_path):
    with answering(portal) as host, client(host) as registry:
        with pytest.raises(BadInput, match=f"registry '{host}' answered 200 to PUT 'a/manifests/"):
            registry.push_index("a", "v1", ONE)
        with pytest.raises(EdgepackError, match="text/html") as caught:
            registry.pull_index("a", "v1", tmp_path / "layout")
        assert "\n" not in str(caught.value)
        assert [fault.message for fault in validate(registry.source("a", "v1"))] == [
            "has media type 'text/html', expected an image manifest or index"
        ]
    assert not (tmp_path / "layout/index.json").exists()


STRANGE = {
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\x00" * 5000,
    "nothing": b"",
    "no status": b"HTTP/1.1 two hundred\r\n\r\n",
    "an endless header": b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000,
}


@pytest.mark.parametrize("answer", STRANGE.values(), ids=STRANGE)
def test_what_speaks_no_http_is_unreachable_in_one_line(tmp_path, answer):
    with answering(lambda asked: answer) as host, client(host) as registry:
        with pytest.raises(Unreachable, match=f"registry '{host}' did not answer: the connection broke") as caught:
            registry.pull_index("a", "v1", tmp_path / "layout")
        assert "\n" not in str(caught.value)


def test_a_registry_that_takes_the_question_and_never_answers_is_given_up_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with Registry(host, sleep=lambda seconds: None, attempts=2, read_s=0.1) as registry:
            with pytest.raises(Unreachable) as caught:
                registry.pull_index("a", "v1", tmp_path / "layout")
            assert str(caught.value) == f"registry '{host}' did not answer: it took too long (tried 2 times)"
            with pytest.raises(Unreachable, match="it took too long"):
                registry.push_index("a", "v1", ONE)


def test_a_manifest_of_another_shape_is_not_trusted(tmp_path):
    page = b'{"schemaVersion": 2, "config": 7}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.oci.image.manifest.v1+json\r\nConnection: close\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n%s" % (len(page), page)
    with (
        answering(lambda asked: whole) as host,
        client(host) as registry,
        pytest.raises(NotTrusted, match="is not an image manifest"),
    ):
        registry.pull_index("a", "v1", tmp_path / "layout")
