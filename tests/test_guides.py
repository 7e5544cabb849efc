"""The guides from elsewhere are short, and what runs them sees a command that is refused."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.guides import ROOT, Reader, commands_of


@pytest.mark.parametrize("guide", sorted((ROOT / "docs/guides").glob("from-*.md")), ids=lambda path: str(path.stem))
def test_a_migration_takes_fewer_than_ten_commands(guide: Path) -> None:
    commands = commands_of(guide)
    assert 0 < len(commands) < 10 and any(line.startswith("edgepack serve") for line in commands)


class Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(400)
        self.end_headers()
        self.wfile.write(b'{"error": "no"}')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("options", ["", "-s ", "-fsS "])
def test_a_question_of_a_guide_that_is_refused_fails_its_test(tmp_path: Path, refusing: str, options: str) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text(f"```sh\ncurl {options}-d 5 http://localhost:8080/predict\n```\n")
    with Reader(tmp_path, ()) as reader, pytest.raises(AssertionError, match=r"400|no"):
        reader.url = refusing
        reader.follow(guide)
