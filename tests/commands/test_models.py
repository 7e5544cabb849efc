"""`edgepack models`, and sources in a registry, where the registry answers what the real one never would."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgepack.commands import program
from edgepack.launch import run
from tests.fakes.model_registry import API, Registry


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()
    yield made
    made.close()


@pytest.fixture
def ended(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """The program, run here with MLflow's own variable for the registry; the exit code."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.url)
    return lambda *arguments: run(lambda: program, "edgepack", list(arguments))


def models(registry: Registry, model: dict[str, Any], *versions: dict[str, Any]) -> None:
    """What the registry says of its only model."""
    search = f"{API}/registered-models/search", f"{API}/model-versions/search"
    registry.routes[search[0]] = lambda handler: handler.give({"registered_models": [model]})
    registry.routes[search[1]] = lambda handler: handler.give({"model_versions": list(versions)})


WINE = {"name": "wine"}
ODD: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "aliases of a model": ({**WINE, "aliases": 5}, {**WINE, "version": "1"}),
    "an alias of a model": ({**WINE, "aliases": ["a"]}, {**WINE, "version": "1"}),
    "aliases of a version": (WINE, {**WINE, "version": "1", "aliases": 5}),
    "half a letter": ({"name": "m\ud800"}, {**WINE, "version": "1"}),
    "half a letter in a version": (WINE, {**WINE, "version": "1", "description": "\udcff"}),
    "a list as version": (WINE, {**WINE, "version": ["1"]}),
    "a version that is a path": (WINE, {**WINE, "version": "../1"}),
    "a list as name": ({"name": ["m"]}, {**WINE, "version": "1"}),
}


@pytest.mark.parametrize("what", ODD)
def test_an_odd_answer_is_the_registrys_fault_in_one_line(
    registry: Registry, ended: Callable[..., int], capsys: pytest.CaptureFixture[str], what: str
) -> None:
    models(registry, *ODD[what])
    assert ended("models") == 1
    line = capsys.readouterr().err
    assert line.startswith("edgepack: registry ") and line.count("\n") == 1 and "is it an MLflow server?" in line


def test_versions_and_times_that_are_no_numbers_are_listed_all_the_same(
    registry: Registry, ended: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"creation_timestamp": "²", "last_updated_timestamp": 10**18}
    versions = [{**WINE, "version": each} for each in ("2", "10", "²", "9" * 5000, 3)]
    models(registry, {**WINE, **times}, *versions)
    assert ended("models", "--json") == 0
    (said,) = json.loads(capsys.readouterr().out)["models"]
    assert [each["version"] for each in said["versions"]][:3] == ["10", "3", "2"] and said["created_at"] is None


def test_a_name_forges_no_row_and_does_not_speak_to_the_terminal(
    registry: Registry, ended: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    models(registry, {"name": "m\x1b]0;owned\x07\nother  plant  9"})
    assert ended("models") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("name") and row.startswith("m?]0;owned??other  plant  9")
    uri = {"artifact_uri": "file:///x\x1b]0;owned\x07"}
    registry.routes[f"{API}/model-versions/get-download-uri"] = lambda handler: handler.give(uri)
    assert ended("models", "wine/1") == 2
    assert "file:///x?]0;owned?'" in capsys.readouterr().err


def test_a_name_that_cannot_be_asked_for_is_the_users_fault(ended: Callable[..., int]) -> None:
    assert [ended("models", name) for name in ("it's", "m\udcff", "m\x1b")] == [2, 2, 2]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_version_without_files_ends_with_two(
    registry: Registry, ended: Callable[..., int], capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    registry.holds()
    assert ended("models", "wine/1", *options) == 2
    said = capsys.readouterr()
    assert not said.out and "lists no files of version 1 of 'wine': was it logged whole?" in said.err


@pytest.mark.parametrize("command", ["build", "bundle", "check", "inspect", "introspect", "publish", "serve"])
def test_a_version_is_a_source_of_every_command_that_takes_one(
    registry: Registry, ended: Callable[..., int], capsys: pytest.CaptureFixture[str], command: str
) -> None:
    registry.routes[f"{API}/model-versions/get-download-uri"] = lambda handler: handler.give({"message": "gone"}, 404)
    assert ended(command, "models:/wine/1") == 2
    assert "no such thing (404: gone)" in capsys.readouterr().err


def test_commands_end_with_two_for_the_users_fault_and_one_for_the_registrys(
    registry: Registry, ended: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for what in ("registered-models", "model-versions"):
        registry.routes[f"{API}/{what}/search"] = lambda handler: handler.give({}, 503)
    assert ended("registries", "add", "plant", "--url", registry.url) == 1
    assert ended("models") == 1
    assert ended("registries", "remove", "plant") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("edgepack: ") for line in lines), lines
