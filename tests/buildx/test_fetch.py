from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from buildx.fetch import Gone, Wanted, fetch, fetch_all
from edgepack.errors import NotTrusted, Unreachable

DATA = b"content" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


class Server(ThreadingHTTPServer):
    """Gives the answers that a test wrote down, one a request: a status, a body, the length it claims."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes, int]] = []
        self.asked = 0

    def url(self, name="f"):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked += 1
        status, body, claimed = self.server.answers.pop(0) if self.server.answers else (200, DATA, len(DATA))
        self.send_response(status)
        self.send_header("Content-Length", str(claimed))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def get(server, folder, sha256=SHA):
    return fetch(Wanted(server.url(), sha256, "f"), folder, sleep=lambda _: None)


def test_a_file_is_fetched_once_and_then_taken_from_the_cache(server, tmp_path):
    assert get(server, tmp_path).read_bytes() == DATA
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked == 1


def test_a_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    get(server, tmp_path).write_bytes(b"damaged")
    assert get(server, tmp_path).read_bytes() == DATA


def test_a_cut_answer_and_a_busy_server_are_tried_again(server, tmp_path):
    server.answers = [(200, DATA[:10], len(DATA)), (503, b"", 0)]
    assert get(server, tmp_path).read_bytes() == DATA
    assert server.asked == 3


def test_four_failures_end_it_with_one_line(server, tmp_path):
    server.answers = [(500, b"", 0)] * 4
    with pytest.raises(Unreachable, match=r"127.0.0.1 did not give 'f' in 4 attempts"):
        get(server, tmp_path)
    assert list(tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize(("status", "expected"), [(404, Gone), (410, Gone), (403, Unreachable)])
def test_an_answer_that_will_not_change_is_not_asked_for_again(server, tmp_path, status, expected):
    server.answers = [(status, b"", 0)]
    with pytest.raises(expected):
        get(server, tmp_path)
    assert server.asked == 1


def test_other_bytes_than_the_digest_says_are_refused_and_not_kept(server, tmp_path):
    with pytest.raises(NotTrusted, match=r"does not have the digest sha256:0000"):
        get(server, tmp_path, "0" * 64)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_missing_local_file_is_gone(tmp_path):
    with pytest.raises(Gone):
        fetch(Wanted((tmp_path / "nothing").as_uri(), SHA, "f"), tmp_path / "cache", sleep=lambda _: None)


def test_the_first_failure_of_several_ends_all(server, tmp_path):
    server.answers = [(404, b"", 0)]
    with pytest.raises(Gone):
        fetch_all([Wanted(server.url(str(n)), SHA, str(n)) for n in range(20)], tmp_path)
    assert list(tmp_path.rglob("*.part")) == []
