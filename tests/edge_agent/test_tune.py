"""`edgepack-agent tune`: what is tried, what is kept, and that the next load follows it."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
from click.testing import CliRunner

from edge_agent.agent import ServingStage
from edge_agent.commands.tune import command
from edge_agent.folders import Folders
from edge_agent.serving import Serving
from edge_agent.spools import Spools
from edge_agent.state import State, Tuning
from edge_agent.tuning import Try, _counts, best
from edgepack.errors import BadInput
from fleet.messages import Assigned
from tests.runtimes.models import bundle_folder, linear, step


def assigned(manifest):
    return Assigned(repository="demo", index="sha256:" + "b" * 64, manifest=manifest)


@pytest.fixture
def device(tmp_path):
    """A data folder with one installed bundle."""
    folders = Folders(tmp_path / "data").make()
    folder = bundle_folder(folders.root / "x", {"linear.onnx": linear()}, [step(sha256="")], name="demo")
    manifest = f"sha256:{folder.name}"
    folder.rename(folders.bundle(manifest))
    with closing(State.open(folders.state)) as state:
        state.activate("demo", assigned(manifest))
    return folders, manifest


def test_the_fewest_threads_that_are_nearly_as_quick_are_kept():
    assert best([Try(1, 100, 1), Try(2, 95, 1), Try(4, 92, 1)]).threads == 1
    assert best([Try(1, 100, 1), Try(2, 60, 1), Try(4, 57, 1)]).threads == 2
    assert [_counts(cpus) for cpus in (1, 2, 3, 4, 6, 8)] == [
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4],
        [1, 2, 4, 6],
        [1, 2, 4, 8],
    ]


def test_tuning_is_kept_for_the_bundle_and_the_next_load_follows_it(device):
    folders, manifest = device
    done = CliRunner().invoke(command, ["--data", str(folders.root), "--seconds", "0.02", "--json"])
    assert done.exit_code == 0, done.output
    (found,) = json.loads(done.output)["pipelines"]
    assert found["pipeline"] == "demo"
    assert {each["place"] for each in found["tried"]} <= {"serving thread", "thread of its own"}
    with closing(State.open(folders.state)) as state:
        assert state.tuning(manifest).threads == found["threads"]
        state.tune(manifest, Tuning(3, 1.0))
        serving, spools = Serving(), Spools(folders.spools, lambda: "line-4")
        stage = ServingStage(serving, spools, lambda: "line-4", folders.environments, state.tuning)
        stage.load("demo", folders.bundle(manifest), assigned(manifest))()
        (active,) = serving.pipelines
        assert active.loaded._steps[0]._session.get_session_options().intra_op_num_threads == 3
        serving.close()
        spools.close()


def test_a_device_that_never_tuned_has_no_settings(device):
    folders, manifest = device
    with closing(State.read(folders.state)) as state:
        assert state.tuning(manifest) is None


def test_an_unknown_pipeline_is_refused_with_those_there_are(device):
    done = CliRunner().invoke(command, ["--data", str(device[0].root), "--pipeline", "other"])
    assert isinstance(done.exception, BadInput)
    assert "'demo'" in str(done.exception)
