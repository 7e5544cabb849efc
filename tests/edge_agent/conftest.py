"""What several tests of this room stand on: doors with pipelines behind them, a real hub, a link to it that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from edge_agent.folders import Folders
from edge_agent.state import State
from packager import Project
from tests.edge_agent.live_agent import Live, unproven
from tests.edge_agent.real_hub import running_hub
from tests.edge_agent.served import Front, Served
from tests.fakes.hub import FaultyLink
from tests.runtimes.models import linear


@pytest.fixture(autouse=True)
def shadows_have_time(monkeypatch):
    """A reader of a log waits for shadows that are at work, on a busy machine too."""
    monkeypatch.setattr("edge_agent.inference_log.spool._SETTLE_S", 60.0)


@pytest.fixture(scope="module", params=[True, False], ids=["hot", "flask"])
def front(request):
    """Every test that asks for it runs both ways: what a client sees must be the same."""
    return Front(hot=request.param)


@pytest.fixture
def served(tmp_path, front):
    with Served(tmp_path, front) as served:
        yield served


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with running_hub(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture
def link(hub):
    """A way to the hub that can be cut."""
    link = FaultyLink(hub.url)
    yield link
    link.close()


@pytest.fixture
def folders(tmp_path):
    return Folders(tmp_path / "data").make()


@pytest.fixture
def state(folders):
    state = State.open(folders.state)
    yield state
    state.close()


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Live]]:
    """Follow a folder with these models: path → factor."""
    monkeypatch.setattr("edge_agent.http.server._PARTING_S", 0.0)  # nobody sends while these servers end
    with ExitStack() as stack:

        def make(files: dict[str, float], package: Callable[[Project], Any] = unproven, **budget: int) -> Live:
            source = tmp_path / "models"
            for path, factor in files.items():
                (source / path).parent.mkdir(parents=True, exist_ok=True)
                (source / path).write_bytes(linear(factor=factor))
            return Live(source, package, stack, **budget)

        yield make
