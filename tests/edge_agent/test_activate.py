from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from arch.target import Target, host_target
from bundle.bundle import bundles, pack
from bundle.golden import Comparison
from bundle.model_folders import BASE
from bundle.pipeline import PipelineSpec, WorkerSpec
from bundle.store import faults
from edge_agent.activate import ATTEMPTS, Activator, WrongAnswers
from edge_agent.imports import fitting_bundles, import_layout
from edge_agent.state import Installed, State
from edgepack.errors import BadInput, NotTrusted, RuntimeFailed
from fleet.messages import Assignment
from oci.layout import write_layout
from runtimes.trial import run_trial
from tests.edge_agent.real_hub import assigned, make_bundle
from tests.runtimes.models import GOLDEN, linear, step


class Stage:
    """Remembers what was switched to; loading fails on demand."""

    def __init__(self):
        self.now = {}
        self.fails = None

    def load(self, name, folder, version):
        if self.fails:
            raise self.fails
        return lambda: self.now.__setitem__(name, version.manifest)

    def remove(self, name):
        self.now.pop(name, None)

    def serving(self):
        return dict(self.now)


def passed(folder):
    return Comparison(rows=1, max_abs=0.0, max_rel=0.0, label_flips=0, worst_row=None, passed=True, reason=None)


@pytest.fixture
def stage():
    return Stage()


@pytest.fixture
def activator(folders, state, stage):
    return Activator(folders, state, stage, passed)


@pytest.fixture
def one(tmp_path):
    return make_bundle(tmp_path / "one", factor=1.0)


@pytest.fixture
def two(tmp_path):
    return make_bundle(tmp_path / "two", factor=2.0)


def put(activator, index, sequence=1):
    activator.unpack(bundles(index)[0])
    activator.activate("demo", assigned(index), sequence)


def test_a_bundle_becomes_active_and_the_one_before_stays_as_previous(activator, state, stage, folders, one, two):
    put(activator, one)
    put(activator, two, 2)
    assert stage.now == {"demo": assigned(two).manifest}
    assert state.installed() == {"demo": Installed(assigned(two), assigned(one))}
    activator.collect()
    assert activator.staged() == {assigned(one).manifest, assigned(two).manifest}


def test_golden_rows_run_on_this_machine_and_a_bundle_that_answers_wrongly_is_not_activated(
    folders, state, stage, one, tmp_path
):
    activator = Activator(folders, state, stage, run_trial)
    put(activator, one)
    bad = make_bundle(tmp_path / "bad", factor=5.0, right=False)
    activator.unpack(bundles(bad)[0])
    with pytest.raises(WrongAnswers, match=r"answers wrongly on this machine.*'y'"):
        activator.activate("demo", assigned(bad), 2)
    assert stage.now == {"demo": assigned(one).manifest}
    assert state.installed() == {"demo": Installed(assigned(one))}


def test_a_bundle_that_does_not_load_leaves_the_one_that_serves(activator, state, stage, one, two):
    put(activator, one)
    stage.fails = RuntimeFailed("the engine refuses it")
    with pytest.raises(RuntimeFailed, match="refuses"):
        put(activator, two, 2)
    assert state.installed() == {"demo": Installed(assigned(one))}


def test_an_activation_that_never_comes_back_is_tried_three_times_only(folders, state, stage, one):
    def crash(folder):
        raise RuntimeFailed("ended its trial by signal SIGKILL")

    activator = Activator(folders, state, stage, crash)
    activator.unpack(bundles(one)[0])
    for _ in range(ATTEMPTS):
        with pytest.raises(RuntimeFailed, match="SIGKILL"):
            activator.activate("demo", assigned(one), 1)
    with pytest.raises(WrongAnswers, match="3 attempts"):
        activator.activate("demo", assigned(one), 1)
    with pytest.raises(RuntimeFailed, match="SIGKILL"):
        activator.activate("demo", assigned(one), 2)


def test_a_start_serves_what_was_active(activator, folders, state, one, two):
    put(activator, one)
    put(activator, two)
    stage = Stage()
    assert Activator(folders, state, stage, passed).restore() == {}
    assert stage.now == {"demo": assigned(two).manifest}


def damage(folders, version):
    path = folders.bundle(version.manifest) / "linear.onnx"
    path.chmod(0o644)
    path.write_bytes(b"rotten")


def test_a_damaged_bundle_folder_gives_way_to_the_previous_one_with_the_reason(activator, folders, state, one, two):
    put(activator, one)
    put(activator, two)
    damage(folders, assigned(two))
    stage = Stage()
    again = Activator(folders, state, stage, passed)
    reasons = again.restore()
    assert stage.now == {"demo": assigned(one).manifest}
    assert "'linear.onnx' does not have the digest" in reasons["demo"]
    # the state still says what should be active, and the damaged folder is no longer taken for staged
    assert state.installed()["demo"].active == assigned(two)
    assert assigned(two).manifest not in again.staged()


def test_what_a_budget_lets_go_of_is_not_missed_at_the_next_start(activator, folders, state, one, two, caplog):
    put(activator, one)
    put(activator, two)
    activator.discard(assigned(one).manifest)
    assert state.installed() == {"demo": Installed(assigned(two))}
    activator.discard(assigned(two).manifest)
    assert (state.installed(), activator.staged()) == ({}, frozenset())
    stage = Stage()
    assert Activator(folders, state, stage, passed).restore() == {}
    assert (stage.now, caplog.records) == ({}, [])


def test_a_folder_damaged_before_its_activation_is_not_activated(activator, folders, stage, one):
    activator.unpack(bundles(one)[0])
    damage(folders, assigned(one))
    with pytest.raises(RuntimeFailed, match="fetching again"):
        activator.activate("demo", assigned(one), 1)
    assert stage.now == {}
    assert activator.staged() == frozenset()


def test_what_nothing_names_is_deleted_and_what_is_wanted_stays(activator, folders, state, tmp_path):
    made = [make_bundle(tmp_path / str(factor), factor=float(factor)) for factor in range(1, 5)]
    for sequence, index in enumerate(made[:3], 1):
        put(activator, index, sequence)
    activator.unpack(bundles(made[3])[0])
    (folders.blobs / ("f" * 64)).write_bytes(b"of nobody")
    (folders.blobs / f"{'e' * 64}.part").write_bytes(b"half of nobody's")
    wanted = folders.blobs / assigned(made[3]).manifest[7:]
    wanted.write_bytes(made[3].images[0].manifest.data)
    half = folders.blobs / f"{made[3].images[0].layers[0].descriptor.digest[7:]}.part"
    half.write_bytes(b"half of what is being fetched")
    activator.collect([assigned(made[3]).manifest])
    assert activator.staged() == {assigned(index).manifest for index in made[1:]}
    assert {path.name for path in folders.blobs.iterdir()} == {wanted.name, half.name}
    activator.remove("demo")
    activator.collect()
    assert list(folders.bundles.iterdir()) == list(folders.blobs.iterdir()) == []


def test_what_an_active_bundle_was_made_of_on_this_device_stays_with_it(activator, folders, one, tmp_path):
    """Two changes of its models later neither active nor previous is the bundle that was installed."""

    def with_other_models(number):
        worker = WorkerSpec("cortex", "3.11", options={BASE: assigned(one).manifest, "number": number})
        model = tmp_path / "predictor.py"
        model.write_bytes(b"")
        spec = PipelineSpec("demo", [step(model=model.name, framework="cortex", runtime="python", worker=worker)])
        return pack(spec, {model.name: model}, GOLDEN, [host_target()])

    put(activator, one)
    changed = [with_other_models(number) for number in range(3)]
    for index in changed:
        put(activator, index)
    activator.collect()
    assert activator.staged() == {assigned(index).manifest for index in (one, *changed[1:])}
    folders.bundle(assigned(changed[2]).manifest).joinpath("pipeline.json").unlink()
    assert "is damaged on this disk" in activator.restore()["demo"]
    activator.collect()
    assert activator.staged() == {assigned(index).manifest for index in (one, changed[1])}


def test_a_layout_folder_is_active_until_the_first_assignment(activator, state, stage, one, two, tmp_path):
    baked, newer = tmp_path / "baked", tmp_path / "newer"
    write_layout(one, baked)
    write_layout(two, newer)
    assert import_layout(baked, activator, state, stage.serving(), host_target()) == ["demo"]
    assert stage.now == {"demo": assigned(one).manifest}
    import_layout(newer, activator, state, stage.serving(), host_target())
    assert stage.now == {"demo": assigned(two).manifest}
    state.accept(Assignment("dev_1", 1, {}, 5.0), None)
    assert import_layout(baked, activator, state, stage.serving(), host_target()) == []
    assert stage.now == {"demo": assigned(two).manifest}


def test_a_layout_may_lack_the_blobs_of_other_targets_and_damage_is_refused(one, two, tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes(linear())
    both = pack(PipelineSpec("demo", [step()]), {"linear.onnx": model}, GOLDEN, [Target("x86"), Target("arm")])
    folder = tmp_path / "both"
    layout = write_layout(both, folder)
    mine, other = sorted(bundles(both), key=lambda each: each.target != host_target())
    layout.path(other.digest).unlink()
    (found,) = fitting_bundles(folder, host_target())
    assert (found.digest, found.version) == (mine.digest, mine.version)
    layout.path(mine.image.config.descriptor.digest).write_bytes(b"{}")
    with pytest.raises(NotTrusted):
        fitting_bundles(folder, host_target())


def test_a_layout_without_a_bundle_for_this_device_says_what_it_has(tmp_path, one):
    folder = tmp_path / "baked"
    write_layout(one, folder)
    other = Target("arm" if host_target().arch == "x86" else "x86")
    with pytest.raises(BadInput, match=f"no bundle for {other}: it has {host_target()}"):
        fitting_bundles(folder, other)
    with pytest.raises(BadInput, match="not an OCI layout"):
        fitting_bundles(tmp_path, host_target())


_SWITCHER = """
import sys
from pathlib import Path
from edge_agent.activate import Activator
from edge_agent.folders import Folders
from edge_agent.state import State
from tests.edge_agent.real_hub import assigned, make_bundle
from tests.edge_agent.test_activate import Stage, passed, put
folders = Folders(Path(sys.argv[1]))
activator = Activator(folders, State.open(folders.state), Stage(), passed)
number = 0
while True:
    number += 1
    index = make_bundle(Path(sys.argv[2]), factor=float(number % 7 + 1))
    put(activator, index, number)
    activator.collect()
    print(assigned(index).manifest, flush=True)
"""


def test_a_kill_in_the_middle_of_activations_leaves_a_whole_bundle_active(folders, tmp_path):
    dice = random.Random(3)
    for _ in range(4):
        command = [sys.executable, "-c", _SWITCHER, str(folders.root), str(tmp_path / "models")]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        said = child.stdout.readline().split()
        time.sleep(dice.uniform(0.01, 0.25))
        os.kill(child.pid, signal.SIGKILL)
        said += child.stdout.read().split()
        child.wait()
        child.stdout.close()
        state, stage = State.open(folders.state), Stage()
        activator = Activator(folders, state, stage, passed)
        assert activator.restore() == {}
        installed = state.installed()["demo"]
        assert stage.now == {"demo": installed.active.manifest}
        assert said[-1] in (installed.active.manifest, installed.previous.manifest if installed.previous else None)
        activator.collect()
        for folder in folders.bundles.iterdir():
            assert faults(folder) == []
        state.close()
    shutil.rmtree(folders.root)
