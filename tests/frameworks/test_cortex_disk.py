"""A predictor with more models than may lie on the disk: what is asked for comes, the least recently used leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from edge_agent.doors import TABLE, make_app
from edge_agent.folders import Folders
from edge_agent.http.hot_path import HotPath
from edge_agent.http.server import Limits, Server
from edge_agent.telemetry.metrics import Metrics
from tests.edge_agent.live_agent import Live, proven
from tests.frameworks.test_cortex import numpy_only
from tests.packager.dialects.test_cortex import API, PREDICTOR, files_of

__all__ = ["numpy_only"]  # a fixture
pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(900)]
BUDGET = API.replace("cache_size: 2", "cache_size: 1\n      disk_cache_size: 2")
ONE = {"x": [1], "model": "a"}
FACTORS = {"a": 1, "b": 2, "c": 3, "d": 4}


def project(folder: Path, predictor: str = PREDICTOR) -> Path:
    """A predictor with four models, two of which may lie on the disk."""
    assert "disk_cache_size: 2" in BUDGET
    models = {f"models/{name}/factor.json": str(factor) for name, factor in FACTORS.items()}
    return files_of(
        folder, {"cortex.yaml": BUDGET, "predictor.py": predictor, "sample.json": json.dumps(ONE), **models}
    )


class Few(Live):
    """The predictor behind a port; requests may take as long as a busy machine needs to make a bundle."""

    def __init__(self, source: Path, make: Callable[..., Any], stack: ExitStack) -> None:
        super().__init__(source, make, stack)
        metrics, limits = Metrics(), Limits(request_s=120)
        hot = HotPath(TABLE, self.agent.serving, metrics)
        app = make_app(self.agent.serving, metrics)
        self.server = stack.enter_context(Server(app, "127.0.0.1", 0, hot=hot, limits=limits))

    def said(self, query: str, payload: Any = ONE) -> Any:
        """The answer to 1, else status and error."""
        with requests.Session() as http:
            found = http.post(f"{self.server.url}/predict?{query}", json=payload, timeout=300)
        return found.json()["y"][0] if found.ok else (found.status_code, found.json()["error"])

    @property
    def on_disk(self) -> list[list[str]]:
        """The models in each bundle folder of the device."""
        folders = [each for each in Folders(self.data).bundles.iterdir() if not each.name.startswith(".")]
        return [sorted({path.parent.name for path in each.rglob("factor.json")}) for each in folders]


@pytest.fixture
def few(tmp_path: Path, numpy_only: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Few]]:
    monkeypatch.setattr("edge_agent.http.server._PARTING_S", 0.0)  # nobody sends while these servers end
    with ExitStack() as stack:
        yield lambda *code: Few(project(tmp_path / "project", *code), proven(tmp_path, numpy_only), stack)


def test_what_is_asked_for_comes_and_the_least_recently_used_leaves_the_disk(few: Callable[..., Few]) -> None:
    served = few()
    assert served.on_disk == [["a", "b"]], "the latest of each model, as many as may be"
    assert [served.said(f"model={name}") for name in "ab"] == [2, 3]
    assert served.said("model=c&version=1") == 4
    assert served.on_disk == [["b", "c"]]
    assert served.said("model=b") == 3
    assert served.said("model=d") == 5
    assert served.on_disk == [["b", "d"]], "c was not asked for longest"
    named = served.http.get(f"{served.server.url}/v2/models/a", timeout=30).json()
    assert (named["name"], named["versions"]) == ("a", ["1"]), "it is listed, on the disk or not"
    tensor = {"name": "json", "shape": [1], "datatype": "BYTES", "data": ['{"x": [1]}']}
    url = f"{served.server.url}/v2/models/a/versions/1/infer"
    answer = served.http.post(url, json={"inputs": [tensor]}, timeout=300).json()
    assert json.loads(answer["outputs"][0]["data"][0])["y"] == [2]
    code, said = served.said("model=e")
    assert code == 422 and "there is 'a', 'b', 'c', 'd'" in said
    files_of(served.source, {"models/b/factor.json": "7"})
    assert served.on_disk == [["a", "d"]]
    served.settle()
    assert served.on_disk == [["a", "d"]], "what changes keeps the models that are there"
    assert served.said("model=b") == 8


def test_clients_that_want_more_than_there_is_room_for_are_all_answered(few: Callable[..., Few]) -> None:
    served = few()
    seen: list[list[list[str]]] = []

    def ask(names: str) -> list[Any]:
        said = []
        for name in names:
            said.append(served.said(f"model={name}"))
            seen.append(served.on_disk)
        return said

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(ask, ["acbd", "dbca", "dddd"]))
    assert found == [[2, 4, 3, 5], [5, 3, 4, 2], [5, 5, 5, 5]]
    served.models.step()
    assert len(served.on_disk) == 1, "what a request was in flight with is gone as well"
    assert all(len(each) <= 2 for now in [*seen, served.on_disk] for each in now)


def test_a_source_that_went_away_refuses_what_is_not_there_and_nothing_else(few: Callable[..., Few]) -> None:
    served = few()
    served.source.rename(served.source.with_name("gone"))
    code, said = served.said("model=c")
    assert code == 503 and said.startswith("model 'c', version 1, does not come: ") and "project" in said
    assert [served.said(f"model={name}") for name in "ab"] == [2, 3]
    served.source.with_name("gone").rename(served.source)
    files_of(served.source, {"models/d/factor.json": "{"})
    code, said = served.said("model=d")
    assert code == 503 and "JSONDecodeError" in said
    assert [served.said(f"model={name}") for name in "abc"] == [2, 3, 4]
    files_of(served.source, {"models/a/1/factor.json": "1", "models/a/2/factor.json": "{"})
    (served.source / "models/a/factor.json").unlink()
    served.settle()
    assert [served.said(f"model={name}") for name in "abca"] == [2, 3, 4, 2], "a broken one changes nothing"


CAREFUL = """
import json
from pathlib import Path

class PythonPredictor:
    def __init__(self, config, python_client):
        self.client = python_client

    def load_model(self, model_path):
        return json.loads(Path(model_path, "factor.json").read_text())

    def predict(self, payload):
        try:
            return {"y": [self.client.get_model(payload["model"])]}
        except:
            return {"y": ["caught"]}
"""


def test_a_predictor_that_chooses_by_the_payload_and_catches_everything_gets_its_models(
    few: Callable[..., Few],
) -> None:
    """Its sample asks a model that is not there any more: then it is loaded, and asked nothing."""
    served = few(CAREFUL)
    assert [served.said("", {"model": name}) for name in "abcda"] == [1, 2, 3, 4, 1]
    assert served.on_disk == [["a", "d"]]
    assert served.said("", {"model": "e"}) == "caught"
