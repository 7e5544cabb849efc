"""Models in an object store, against a real server that speaks S3: packaged from a prefix, and followed there."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from edgepack.errors import BadInput, Unreachable
from packager import Checklist, Project
from packager.dialects import cortex_stores
from packager.dialects.cortex_disk import Disk
from packager.inspect import inspect_step
from packager.live import live_source
from tests.clients.environments import client_python
from tests.edge_agent.live_agent import proven
from tests.frameworks.test_cortex import numpy_only
from tests.frameworks.test_cortex_disk import Few
from tests.packager.dialects.test_cortex import API, api

__all__ = ["numpy_only"]  # a fixture
pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]
BUCKET = "models"
SIGNED = {"Authorization": "AWS key:signature"}  # who asks is not looked at; that somebody does, is


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with nothing in it; its address."""
    log = tmp_path_factory.mktemp("moto") / "log"
    program = client_python("moto").with_name("moto_server")
    with log.open("wb") as out:
        process = subprocess.Popen([str(program), "-H", "127.0.0.1", "-p", "0"], stdout=out, stderr=out)
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(process.wait)
            stack.callback(process.kill)
            while (found := re.search(rb"http://127\.0\.0\.1:\d+", log.read_bytes())) is None:
                assert process.poll() is None, log.read_text()
            yield found[0].decode()
    finally:
        assert process.poll() is not None


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The bucket, empty; credentials are in the environment."""
    import requests
    from obstore.store import S3Store

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    given = {"ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1", "ENDPOINT_URL": server}
    for name, value in given.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    requests.post(f"{server}/moto-api/reset", timeout=30).raise_for_status()
    requests.put(f"{server}/{BUCKET}", timeout=30).raise_for_status()
    yield S3Store(BUCKET, endpoint=server, client_options={"allow_http": True})


def put(store: Any, files: dict[str, str]) -> None:
    import obstore

    for path, text in files.items():
        obstore.put(store, path, text.encode())


def project(folder: Path, path: str = "dir: s3://models/factors/") -> Path:
    made = api(folder, yaml=API.replace("dir: ./models/", path))
    shutil.rmtree(made / "models")
    return made


def inspected(source: Path, cache: Path) -> Any:
    opened = Project.open(source)
    return inspect_step(opened.steps[0], opened.root, Checklist(), cache)


def test_models_below_a_prefix_are_packaged_with_their_versions(store: Any, tmp_path: Path) -> None:
    put(store, {"factors/a/1/factor.json": "1", "factors/a/2/factor.json": "2", "factors/b/factor.json": "5"})
    put(store, {"factors-of-others/c/factor.json": "9"})
    made = inspected(project(tmp_path / "project"), tmp_path / "cache")
    assert {name: list(versions) for name, versions in made.options["models"].items()} == {"a": ["1", "2"], "b": ["1"]}
    place = made.options["models"]["a"]["2"]["path"]
    assert json.loads(made.files[f"{made.model}/{place}/factor.json"].read_text()) == 2
    single = inspected(project(tmp_path / "one", "path: s3://models/factors/a"), tmp_path / "cache")
    assert list(single.options["models"]["Multiplier_API"]) == ["1", "2"]


class Decoding(http.server.BaseHTTPRequestHandler):
    """Google's XML API and that of S3 are one but for this: a slash in an object's name is escaped."""

    address = ""

    def do_GET(self) -> None:
        import requests

        path, _, query = self.path.partition("?")
        found = requests.get(f"{self.address}{unquote(path)}{'?' if query else ''}{query}", headers=SIGNED, timeout=30)
        self.send_response(found.status_code)
        for name in ("Content-Type", "ETag", "Last-Modified"):
            if name in found.headers:
                self.send_header(name, found.headers[name])
        self.send_header("Content-Length", str(len(found.content)))
        self.end_headers()
        self.wfile.write(found.content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_prefix_of_googles_store_is_read_by_its_own_protocol(
    store: Any, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, {"factors/a/1/factor.json": "1", "factors/a/2/factor.json": "2"})
    handler = type("Handler", (Decoding,), {"address": server})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as google:
        thread = threading.Thread(target=google.serve_forever)
        thread.start()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{google.server_port}")
        try:
            found = cortex_stores.fetched("gs://models/factors", tmp_path / "cache")
        finally:
            google.shutdown()
            thread.join()
    assert {path: file.read_text() for path, file in found.items()} == {"a/1/factor.json": "1", "a/2/factor.json": "2"}


def test_a_changed_object_is_seen_and_fetched_anew(store: Any, tmp_path: Path) -> None:
    put(store, {"factors/a/1/factor.json": "1"})
    source = project(tmp_path / "project")
    live = live_source(source, lambda _: pytest.fail("nothing is packaged here"), tmp_path / "work")
    assert live is not None
    before, first = live.look().marks, inspected(source, tmp_path / "cache")
    assert (live.look().marks, inspected(source, tmp_path / "cache").digest) == (before, first.digest)
    put(store, {"factors/a/1/factor.json": "7"})
    after, second = live.look().marks, inspected(source, tmp_path / "cache")
    assert after != before and second.digest != first.digest


def test_objects_that_have_no_room_on_the_disk_are_not_fetched_and_those_that_leave_are_deleted(
    store: Any, tmp_path: Path
) -> None:
    put(store, {f"factors/{name}/factor.json": str(number) for number, name in enumerate("abcd")})
    put(store, {"factors/README.md": "of no model"})
    opened = Project.open(project(tmp_path / "project", "dir: s3://models/factors/\n      disk_cache_size: 2"))
    disk = Disk(tmp_path / "objects")
    step = replace(opened.steps[0], disk=disk)

    def fetched(asked: tuple[str, str] | None) -> list[str]:
        disk.asked = asked
        made = inspect_step(step, opened.root, Checklist(), tmp_path / "cache")
        told = made.options["models"]
        assert sorted(told) == ["a", "b", "c", "d"]
        there = [name for name in told if "path" in told[name]["1"]]
        assert [name for name in "abcd" if any(f"/{name}/factor.json" in path for path in made.files)] == there
        assert len(list(disk.folder.rglob("factor.json"))) == 2
        assert all(file.is_file() for file in made.files.values())
        return there

    assert fetched(None) == ["a", "b"]
    assert fetched(("d", "1")) == ["a", "d"]
    assert fetched(None) == ["a", "d"]


def test_models_that_are_not_on_the_disk_come_from_the_store_while_it_answers(
    store: Any, tmp_path: Path, numpy_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, {f"factors/{name}/factor.json": str(number) for number, name in enumerate("abcd")})
    source = project(tmp_path / "project", "dir: s3://models/factors/\n      disk_cache_size: 2")
    monkeypatch.setattr("edge_agent.http.server._PARTING_S", 0.0)  # nobody sends while these servers end
    with contextlib.ExitStack() as stack:
        served = Few(source, proven(tmp_path, numpy_only), stack)
        assert [served.said(f"model={name}") for name in "abcd"] == [1, 2, 3, 4]
        assert served.on_disk == [["c", "d"]]
        assert sorted(path.parent.name for path in (tmp_path / "work").rglob("factor.json")) == ["c", "d"]
        assert not list((tmp_path / "cache").rglob("factor.json"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        code, said = served.said("model=a")
        assert code == 503 and "model 'a', version 1, does not come: 's3://models/factors/' does not answer" in said
        assert [served.said(f"model={name}") for name in "cd"] == [3, 4]


def test_what_a_store_refuses_is_one_line(store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = project(tmp_path / "project")
    with pytest.raises(BadInput, match="'s3://models/factors/' has no objects: expected a model or version folders"):
        inspected(source, tmp_path / "cache")
    with pytest.raises(
        BadInput, match=r"'s3://absent/x' is refused by its store: .*credentials come from the env"
    ) as bad:
        cortex_stores.fetched("s3://absent/x", tmp_path / "cache")
    assert "\n" not in str(bad.value)
    put(store, {"factors/a/b\\c": "1"})
    with pytest.raises(BadInput, match="expected plain names that stay inside it"):
        cortex_stores.fetched("s3://models/factors", tmp_path / "cache")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(Unreachable, match="'s3://models/factors' does not answer: ") as away:
        cortex_stores.fetched("s3://models/factors", tmp_path / "cache")
    assert "\n" not in str(away.value)
