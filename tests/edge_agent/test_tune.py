"""`edgepack-agent tune`: what is tried, what is kept, and that the next load follows it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from click.testing import CliRunner

from edge_agent.agent import ServingStage
from edge_agent.commands.tune import command
from edge_agent.folders import Folders
from edge_agent.inference_log.spools import Spools
from edge_agent.pipelines.serving import Serving
from edge_agent.pipelines.tuning import Setting, Try, _counts, best, settings
from edge_agent.state import State, Tuning
from edgepack.errors import BadInput
from fleet.messages import Assigned
from runtimes.cpus import usable_cpus
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


def tried(*figures):
    """One try a pair of µs a row and requests a second, with 1, 2, 3, ... threads."""
    return [Try(Setting(at, 1, 2), row_us, 1.0, per_s, 0.0) for at, (row_us, per_s) in enumerate(figures, 1)]


def test_the_plainest_setting_that_is_nearly_as_good_is_kept():
    assert best(tried((100, 9), (95, 9), (92, 9))).threads == 1
    assert best(tried((100, 9), (60, 9), (57, 9))).threads == 2
    assert best(tried((100, 5), (200, 9), (110, 8.5))).threads == 3
    assert best([*tried((100, 5)), Try(Setting(1, 2, 3), 160, 1.0, 9.5, 60.0)]) == Tuning(1, 160, 2, 3)


def test_settings_never_have_more_threads_in_all_processes_than_there_are_cpus():
    assert settings(1) == [Setting(1, 1, 2)]
    assert settings(2) == [Setting(1, 1, 2), Setting(2, 1, 2), Setting(1, 2, 3)]
    for cpus in (3, 4, 6, 8, 32):
        found = settings(cpus)
        assert len(set(found)) == len(found)
        assert all(each.threads * each.replicas <= cpus for each in found)
        assert {each.replicas for each in found} == set(_counts(cpus))
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
        kept = state.tuning(manifest)
        assert (kept.threads, kept.replicas, kept.at_once) == (found["threads"], found["replicas"], found["at_once"])
        assert len(found["tried"]) == len(settings(usable_cpus()))
        assert all(each["per_s"] > 0 and each["cpu_us"] >= 0 for each in found["tried"])
        assert all((each["processes_mib"] > 1) == (each["replicas"] > 1) for each in found["tried"])
        state.tune(manifest, Tuning(3, 1.0))
        serving, spools = Serving(), Spools(folders.spools, lambda: "line-4")
        stage = ServingStage(serving, spools, lambda: "line-4", folders.environments, state.tuning)
        stage.load("demo", folders.bundle(manifest), assigned(manifest))()
        (active,) = serving.pipelines
        assert active.loaded._steps[0]._session.get_session_options().intra_op_num_threads == 3
        serving.close()
        spools.close()


def test_the_next_load_has_the_replicas_that_suit_and_as_many_requests_at_once(device):
    folders, manifest = device
    with closing(State.open(folders.state)) as state:
        state.tune(manifest, Tuning(1, 1.0, 2, 5))
        serving, spools = Serving(), Spools(folders.spools, lambda: "line-4")
        stage = ServingStage(serving, spools, lambda: "line-4", folders.environments, state.tuning)
        stage.load("demo", folders.bundle(manifest), assigned(manifest))()
        assert (len(serving.pipelines[0].loaded.workers), serving.wanted_threads) == (2, 5)
        serving.close()
        spools.close()


def test_what_an_earlier_version_has_tuned_still_holds(device):
    folders, manifest = device
    with closing(sqlite3.connect(folders.state)) as db:
        db.execute("CREATE TABLE tuning (manifest TEXT PRIMARY KEY, threads INTEGER NOT NULL, row_us REAL NOT NULL)")
        db.execute("INSERT INTO tuning VALUES (?, 2, 7.5)", (manifest,))
        db.commit()
    with closing(State.open(folders.state)) as state:
        assert state.tuning(manifest) == Tuning(2, 7.5)
        state.tune("other", Tuning(1, 2.0, 4, 5))
        assert state.tuning(manifest) == Tuning(2, 7.5)
        assert state.tuning("other") == Tuning(1, 2.0, 4, 5)


def test_the_table_shows_every_setting_and_which_is_kept(device):
    done = CliRunner().invoke(command, ["--data", str(device[0].root), "--seconds", "0.02"])
    lines = done.output.splitlines()
    assert lines[0] == "pipeline demo"
    assert lines[1].split()[0] == "threads"
    assert len(lines) == 2 + len(settings(usable_cpus()))
    assert sum(line.endswith("<- kept") for line in lines) == 1


def test_a_device_that_never_tuned_has_no_settings(device):
    folders, manifest = device
    with closing(State.read(folders.state)) as state:
        assert state.tuning(manifest) is None


def test_an_unknown_pipeline_is_refused_with_those_there_are(device):
    done = CliRunner().invoke(command, ["--data", str(device[0].root), "--pipeline", "other"])
    assert isinstance(done.exception, BadInput)
    assert "'demo'" in str(done.exception)
