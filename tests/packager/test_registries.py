"""A registry that misbehaves, what is kept of one, and Databricks' file system. The real MLflow server is asked in
tests/frameworks.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack.commands._source import opened_project, working_folder
from edgepack.commands.targets import target_folders
from edgepack.errors import BadInput, EdgepackError, RuntimeFailed, Unreachable
from oci.credentials import Basic, Bearer
from packager.registries.address import parse_address, place_of
from packager.registries.download import fetch_source
from packager.registries.kept import list_downloads, prune_downloads
from packager.registries.mlflow_registry import MlflowRegistry
from packager.registries.session import LARGEST_ANSWER, RegistrySession
from tests.fakes.model_registry import API, FILES, Answer, Handler, Registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


def test_a_version_is_fetched_whole_and_once(registry: Registry, tmp_path: Path) -> None:
    registry.holds(MLmodel=b"text", model=b"abc")
    found = registry.fetch(tmp_path, "models:/wine/1")
    assert found.name == "wine"
    assert {each.name: each.read_bytes() for each in found.iterdir()} == {"MLmodel": b"text", "model": b"abc"}
    asked = len(registry.asked)
    assert registry.fetch(tmp_path, "models:/wine/1") == found and len(registry.asked) == asked + 2  # no file
    assert list_downloads(tmp_path) == (1, 7)
    assert prune_downloads(tmp_path, 0, time.time() + 1) == 7 and not found.exists()


@pytest.mark.parametrize("address", ["mlflow-artifacts:/1/model", "mlflow-artifacts:/1/model/data"])
def test_what_lies_at_a_path_is_what_is_there_now(registry: Registry, tmp_path: Path, address: str) -> None:
    """Neither the names nor the sizes say that it was replaced."""
    found = []
    for content in (b"one", b"two", b"one"):
        registry.holds(data=content)
        found.append(registry.fetch(tmp_path, address))
        file = found[-1] / "data" if found[-1].is_dir() else found[-1]
        assert file.read_bytes() == content
    assert found[0] == found[2] != found[1]


def test_what_is_made_for_a_fetched_model_lies_in_the_working_directory(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is pruned: rows and lock that lay there would be gone, or another machine's."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("EDGEPACK_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    registry.holds(model=b"onnx")
    fetched = registry.fetch(cache, "models:/wine/1")
    found = opened_project(fetched / "model")
    assert (found.kept_in, found.golden.kept) == (tmp_path, tmp_path / "model.golden.json")
    (fetched / "edgepack.toml").write_text('[[steps]]\nmodel = "model"\n')
    found = opened_project(fetched)
    assert (found.kept_in, found.golden.kept, found.golden.rows) == (tmp_path, tmp_path / "wine.golden.json", None)
    (tmp_path / "wine.golden.json").write_text("[]")
    assert opened_project(fetched).golden.rows == tmp_path / "wine.golden.json"
    assert target_folders(fetched)[-1] == tmp_path / "targets"
    own = tmp_path / "own.onnx"
    own.write_bytes(b"onnx")
    assert working_folder(own) is None and opened_project(own).kept_in == tmp_path.resolve()


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


@pytest.mark.parametrize(
    ("begin", "error", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", Unreachable, "is too slow"),
        (b"HTTP/1.1 200 OK\r\nX: ", Unreachable, "is too slow"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", Unreachable, "is too slow"),
        (b"HTTP/1.1 403 No\r\n\r\n", BadInput, r"refuses \(403\): give credentials"),
    ],
    ids=["body", "headers", "length of a chunk", "refusal"],
)
def test_an_answer_that_drips_is_given_up(
    registry: Registry, tmp_path: Path, begin: bytes, error: type[EdgepackError], words: str
) -> None:
    def drip(handler: Handler) -> None:
        handler.wfile.write(begin)
        cut(handler)
        try:
            while True:
                handler.wfile.write(b" ")
                time.sleep(0.02)
        except OSError:
            return

    registry.routes[FILES] = drip
    with pytest.raises(error, match=words):
        registry.fetch(tmp_path, answer_s=0.15)


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


def test_folders_that_hold_nothing_but_folders_end(registry: Registry, tmp_path: Path) -> None:
    """Fewer than are refused wait at any time, and each brings more."""

    def give(handler: Handler) -> None:
        if len(registry.asked) > 400:
            handler.give({}, 500)
            return
        depth = handler.query["path"].count("/") - 1
        count = {0: 9_900, 1: 99}.get(depth, 0)
        handler.give({"files": [{"path": f"f{number}", "is_dir": True} for number in range(count)]})

    registry.routes[FILES] = give
    with pytest.raises(BadInput, match="has more than 10000 files and folders"):
        registry.fetch(tmp_path)


def test_a_size_below_nothing_does_not_make_room_for_another(registry: Registry, tmp_path: Path) -> None:
    registry.lists(("huge", 1 << 60), ("small", -(1 << 60)))
    with pytest.raises(BadInput, match="expected at most"):
        registry.fetch(tmp_path)


@pytest.mark.parametrize("size", ["²", "9" * 5000, True, -1, [1], 1 << 80, 1.5, None, ""])
def test_a_size_that_is_none_is_not_known(registry: Registry, tmp_path: Path, size: Any) -> None:
    registry.holds(model=b"abc")
    said = {"files": [{"path": "model", "is_dir": False, "file_size": size}]}
    registry.routes[FILES] = lambda handler: handler.give(said)
    assert (registry.fetch(tmp_path, "models:/wine/1") / "model").read_bytes() == b"abc"


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


def test_credentials_go_to_no_other_machine_in_the_clear(registry: Registry) -> None:
    with pytest.raises(BadInput, match="credentials are not sent there"):
        RegistrySession("http://mlflow.plant.example", Bearer("t"))
    with pytest.raises(BadInput, match="has a password in it"):
        RegistrySession("http://u:p@127.0.0.1")
    registry.routes[f"{API}/registered-models/search"] = lambda handler: handler.give({})
    with RegistrySession(registry.url, Basic("u", "p")) as session:
        MlflowRegistry(session).check()
    assert registry.asked[-1][1] == "Basic " + base64.b64encode(b"u:p").decode()
