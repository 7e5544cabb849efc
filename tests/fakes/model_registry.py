"""A model registry over HTTP that answers what a test says, also what the real MLflow server never would."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from packager.registries.address import parse_address
from packager.registries.download import fetch_source
from packager.registries.mlflow_registry import MlflowRegistry
from packager.registries.session import RegistrySession

API, FILES = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers a path as the test says; anything else is not there."""

    routes: dict[str, Answer]
    asked: list[tuple[str, str | None]]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.asked.append((self.path, self.headers.get("Authorization")))
        self.routes.get(path, lambda handler: handler.give({"message": "none"}, 404))(self)

    def give(self, said: Any, status: int = 200, **headers: str) -> None:
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("length", str(len(body))))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Registry:
    """A server of this test, its routes, and what it was asked."""

    def __init__(self) -> None:
        self.routes: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []
        handler = type("Own", (Handler,), {"routes": self.routes, "asked": self.asked})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.005,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def lists(self, *files: tuple[str, int], folders: tuple[str, ...] = ()) -> None:
        """One folder with files of these sizes."""
        said = [{"path": name, "is_dir": False, "file_size": size} for name, size in files]
        said += [{"path": name, "is_dir": True} for name in folders]
        self.routes[FILES] = lambda handler: handler.give({"files": said if handler.query["path"] == "1/model" else []})

    def holds(self, **files: bytes) -> None:
        """The same folder with this in it, as version 1 of the model `wine`, and as files that are asked for."""
        self.routes[f"{API}/model-versions/get-download-uri"] = lambda handler: handler.give(
            {"artifact_uri": "mlflow-artifacts:/1/model"}
        )
        self.lists(*((name, len(content)) for name, content in files.items()))
        for name, content in files.items():
            self.routes[f"{FILES}/1/model/{name}"] = lambda handler, content=content: handler.give(content)

    def fetch(self, cache: Path, address: str = "mlflow-artifacts:/1/model", **limits: float) -> Path:
        with RegistrySession(self.url, **limits) as session:
            return fetch_source(MlflowRegistry(session), parse_address(address), cache)
