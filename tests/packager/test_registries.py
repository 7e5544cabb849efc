"""A registry that misbehaves, Databricks' file system, and how addresses are read. The real MLflow server is asked in
tests/frameworks.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.commands import program
from edgepack.commands._registry_logins import registry_credentials, registry_url
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed, Unreachable
from edgepack.launch import run
from oci.credentials import Basic, Bearer
from packager.registries.address import Address, Place, is_address, parse_address, place_of
from packager.registries.download import fetch_source, list_downloads, prune_downloads
from packager.registries.mlflow_registry import MlflowRegistry
from packager.registries.session import LARGEST_ANSWER, RegistrySession

API, FILES = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
SOURCE = parse_address("mlflow-artifacts:/1/model")
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
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
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

    def fetch(self, cache: Path, **limits: float) -> Path:
        with RegistrySession(self.url, **limits) as session:
            return fetch_source(MlflowRegistry(session), SOURCE, cache)


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def test_a_folder_is_fetched_whole_and_once(registry: Registry, tmp_path: Path) -> None:
    registry.lists(("MLmodel", 4), ("model.pkl", 3))
    registry.routes[f"{FILES}/1/model/MLmodel"] = lambda handler: handler.give(b"text")
    registry.routes[f"{FILES}/1/model/model.pkl"] = lambda handler: handler.give(b"abc")
    found = registry.fetch(tmp_path)
    assert found.name == "model"
    assert {each.name: each.read_bytes() for each in found.iterdir()} == {"MLmodel": b"text", "model.pkl": b"abc"}
    asked = len(registry.asked)
    assert registry.fetch(tmp_path) == found and len(registry.asked) == asked + 1  # the listing alone
    assert list_downloads(tmp_path) == (1, 7)
    assert prune_downloads(tmp_path, 0, time.time() + 1) == 7 and not found.exists()


PAGE = b"<!doctype html><title>Sign in</title>"
FAULTS: dict[str, tuple[Answer, type[EdgepackError], str]] = {
    "a page": (
        lambda handler: handler.give(PAGE),
        RuntimeFailed,
        "answers with a web page: is it the URL of an MLflow",
    ),
    "text": (lambda handler: handler.give(b"busy"), RuntimeFailed, "something else than JSON"),
    "a list": (lambda handler: handler.give([]), RuntimeFailed, "something else than JSON"),
    "deep": (lambda handler: handler.give(b"[" * 100_000), RuntimeFailed, "something else than JSON"),
    "odd": (lambda handler: handler.give({"files": 3}), RuntimeFailed, "does not answer with files that reads"),
    "401": (lambda handler: handler.give({}, 401), BadInput, r"refuses \(401\): give credentials"),
    "403": (lambda handler: handler.give({"message": "no\nentry"}, 403), BadInput, r"refuses \(403: no entry\)"),
    "404": (lambda handler: handler.give(PAGE, 404), BadInput, r"no such thing \(404\)"),
    "429": (lambda handler: handler.give({}, 429), Unreachable, "cannot answer now"),
    "500": (lambda handler: handler.give(PAGE, 500), Unreachable, r"cannot answer now \(500\): try again later"),
    "302": (lambda handler: handler.give({}, 302, Location="http://x/"), BadInput, "sends elsewhere, to 'http://x/'"),
    "half": (lambda handler: handler.give(b'{"files"', length="900") or cut(handler), Unreachable, "connection broke"),
    "much": (lambda handler: flood(handler), RuntimeFailed, f"more than {LARGEST_ANSWER} bytes"),
    "silent": (lambda handler: handler.rfile.read(1), Unreachable, "it took too long"),
}


def cut(handler: Handler) -> None:
    handler.close_connection = True


def flood(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    cut(handler)
    try:
        while True:
            handler.wfile.write(b" " * (1 << 20))
    except OSError:
        return


@pytest.mark.parametrize("fault", FAULTS)
def test_a_registry_that_refuses_or_talks_nonsense_is_one_line(registry: Registry, tmp_path: Path, fault: str) -> None:
    registry.routes[FILES], error, words = FAULTS[fault]
    with pytest.raises(error, match=words) as caught:
        registry.fetch(tmp_path, read_s=0.5 if fault == "silent" else 30.0)
    assert "\n" not in str(caught.value) and list_downloads(tmp_path) == (0, 0)


def test_a_registry_that_is_away_is_one_line(tmp_path: Path) -> None:
    gone = Registry()
    gone.close()
    with pytest.raises(Unreachable, match=r"did not answer \(no connection\): is it running"):
        gone.fetch(tmp_path)


def test_an_answer_that_drips_is_given_up(registry: Registry, tmp_path: Path) -> None:
    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        cut(handler)
        try:
            while True:
                handler.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            return

    registry.routes[FILES] = drip
    with pytest.raises(Unreachable, match="is too slow"):
        registry.fetch(tmp_path, answer_s=0.2)


@pytest.mark.parametrize(
    ("sent", "length", "error", "words"),
    [
        (b"abc", "10", Unreachable, "connection broke"),
        (b"abc", "3", Unreachable, "gave 3 of the 10 bytes"),
        (b"a" * 11, "11", BadInput, "more of .* than the 10 bytes"),
    ],
)
def test_a_file_of_another_size_than_was_listed_leaves_nothing(
    registry: Registry, tmp_path: Path, sent: bytes, length: str, error: type[EdgepackError], words: str
) -> None:
    registry.lists(("model.pkl", 10))
    registry.routes[f"{FILES}/1/model/model.pkl"] = lambda handler: handler.give(sent, length=length) or cut(handler)
    with pytest.raises(error, match=words):
        registry.fetch(tmp_path)
    assert list((tmp_path / "registry").iterdir()) == []


@pytest.mark.parametrize("name", ["..", "../x", "/etc/passwd", "a/../../x", "a\\b", ".", "", "a\x00b"])
def test_an_artifact_that_leads_out_is_refused(registry: Registry, tmp_path: Path, name: str) -> None:
    for files, folders in (([(name, 1)], ()), ([], (name,))):
        registry.lists(*files, folders=folders)
        with pytest.raises(BadInput, match="leads out of its folder"):
            registry.fetch(tmp_path / "cache")


def test_folders_without_end_and_names_of_one_case_are_refused(registry: Registry, tmp_path: Path) -> None:
    registry.lists(("a", 1), ("A", 1))
    with pytest.raises(BadInput, match="differ in case alone"):
        registry.fetch(tmp_path)
    registry.routes[FILES] = lambda handler: handler.give({"files": [{"path": "a", "is_dir": True}]})
    with pytest.raises(BadInput, match="nested more than 32 folders deep"):
        registry.fetch(tmp_path)
    registry.lists(("huge", 1 << 50))
    with pytest.raises(BadInput, match="expected at most"):
        registry.fetch(tmp_path)


def test_databricks_file_system_is_listed_and_read_in_pieces(registry: Registry, tmp_path: Path) -> None:
    place = "/databricks/mlflow-registry/9f38/models/testmodel2"
    files = {f"{place}/MLmodel": b"flavors", f"{place}/data/model.pkl": os.urandom((1 << 20) + 5)}

    def listed(handler: Handler) -> None:
        path = handler.query["path"]
        said: dict[str, dict[str, Any]] = {}
        for name, content in files.items():
            if name == path:
                said[name] = {"path": name, "is_dir": False, "file_size": len(content)}
            elif name.startswith(f"{path}/"):
                first = f"{path}/{name.removeprefix(f'{path}/').partition('/')[0]}"
                said[first] = {
                    "path": first,
                    "is_dir": first != name,
                    "file_size": len(content) if first == name else 0,
                }
        handler.give({"files": list(said.values())})

    def read(handler: Handler) -> None:
        query = handler.query
        at, length = int(query["offset"]), int(query["length"])
        piece = files[query["path"]][at : at + length]
        handler.give({"bytes_read": len(piece), "data": base64.b64encode(piece).decode()})

    registry.routes.update({"/api/2.0/dbfs/list": listed, "/api/2.0/dbfs/read": read})
    full = f"{registry.url}/api/2.0/dbfs/read?path={place}"
    with RegistrySession(registry.url) as session:
        found = MlflowRegistry(session)
        artifacts = found.artifacts(place_of(f"dbfs:{place}"))
        assert [(each.name, each.size_bytes) for each in artifacts] == [
            ("MLmodel", 7),
            ("data/model.pkl", (1 << 20) + 5),
        ]
        assert artifacts[1].full_path == f"{full}/data/model.pkl"
        for address, inner in ((f"dbfs:{place}", "data/model.pkl"), (full, "data/model.pkl"), (f"{full}/MLmodel", "")):
            kept = fetch_source(found, parse_address(address), tmp_path)
            whole = (kept / inner if inner else kept).read_bytes()
            assert whole == files[f"{place}/{inner or 'MLmodel'}"]


def test_addresses_are_read() -> None:
    assert parse_address("models:/a b/3") == Address("a b", version="3")
    assert parse_address("models:/wine@champion") == Address("wine", alias="champion")
    assert parse_address("dbfs:/databricks/x/models/m").place == Place("dbfs", "databricks/x/models/m")
    found = parse_address("https://h/mlflow/api/2.0/mlflow-artifacts/artifacts/0/a%20b/artifacts")
    assert found == Address(place=Place("mlflow-artifacts", "0/a b/artifacts"), registry="https://h/mlflow")
    assert found.place is not None and found.place.name == "a b"
    assert not any(map(is_address, ("model.onnx", "./models:", "C:/x", "a/models:/b/1", "s3://b/k")))


@pytest.mark.parametrize(
    "text",
    [
        *("models:/", "models:/a", "models://a/1", "models:/a/1/x", "models:/@x", "models:/a@", "models:/a@b/1"),
        *("dbfs:/", "dbfs:/a/../b", "mlflow-artifacts://host/a", "runs:/1/model", "http://h/model", "models:/a/\n"),
        "https://h/api/2.0/dbfs/read?path=",
    ],
)
def test_an_address_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"expected|start the server") as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60).map(lambda text: f"mlflow-artifacts:/{text}"))
def test_no_path_in_a_store_climbs(text: str) -> None:
    try:
        place = parse_address(text).place
    except BadInput:
        return
    assert place is not None and not {"", ".", ".."} & set(place.path.split("/"))


def test_a_store_that_the_server_does_not_serve_is_refused_with_the_way_out() -> None:
    for uri in ("s3://bucket/model", "gs://b/m", "file:///tmp/m", "/tmp/m"):
        with pytest.raises(BadInput, match="start the server with --serve-artifacts"):
            place_of(uri)


def test_credentials_are_of_the_environment_for_its_own_registry_alone() -> None:
    environ = {"MLFLOW_TRACKING_URI": "https://a.example/mlflow/", "MLFLOW_TRACKING_TOKEN": "t"}
    assert registry_url(None, environ) == "https://a.example/mlflow"
    assert registry_credentials("https://a.example/mlflow", environ) == Bearer("t")
    assert registry_credentials("https://b.example", environ) is None
    user = {"MLFLOW_TRACKING_URI": "https://a.example", "MLFLOW_TRACKING_USERNAME": "u"}
    assert registry_credentials("https://a.example", user) == Basic("u", "")
    bricks = {"MLFLOW_TRACKING_URI": "databricks", "DATABRICKS_HOST": "ws.example", "DATABRICKS_TOKEN": "d"}
    assert registry_url(None, bricks) == "https://ws.example"
    for host in ("ws.example", "https://ws.example/"):
        assert registry_credentials("https://ws.example", {**bricks, "DATABRICKS_HOST": host}) == Bearer("d")
    assert registry_credentials("https://other.example", bricks) is None


def test_credentials_go_to_no_other_machine_in_the_clear(registry: Registry) -> None:
    with pytest.raises(BadInput, match="credentials are not sent there"):
        RegistrySession("http://mlflow.plant.example", Bearer("t"))
    with pytest.raises(BadInput, match="has a password in it"):
        RegistrySession("http://u:p@127.0.0.1")
    registry.routes[f"{API}/registered-models/search"] = lambda handler: handler.give({})
    with RegistrySession(registry.url, Basic("u", "p")) as session:
        MlflowRegistry(session).check()
    assert registry.asked[-1][1] == "Basic " + base64.b64encode(b"u:p").decode()


@pytest.mark.parametrize("url", ["", "x", "ftp://a", "http://", "http://a:b", "http://a/?q", "sqlite:///a.db"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInput, match=r"is not a URL|no registry is named"):
        registry_url(None, {"MLFLOW_TRACKING_URI": url})


def test_commands_end_with_two_for_the_users_fault_and_one_for_the_registrys(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.url)

    def ended(*arguments: str) -> int:
        return run(lambda: program, "edgepack", list(arguments))

    registry.routes[f"{API}/model-versions/get-download-uri"] = lambda handler: handler.give({"message": "gone"}, 404)
    assert ended("check", "models:/wine/1") == 2
    for what in ("registered-models", "model-versions"):
        registry.routes[f"{API}/{what}/search"] = lambda handler: handler.give(PAGE, 503)
    assert ended("registries", "add", "plant", "--url", registry.url) == 1
    assert ended("models") == 1
    assert ended("registries", "remove", "plant") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("edgepack: ") for line in lines), lines
