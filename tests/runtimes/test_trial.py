from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from bundle.store import OpenBundle
from columns.columns import Columns
from columns.schema import Schema
from edgepack.errors import BadInput, RuntimeFailed
from runtimes import trial
from runtimes.trial import predict_in_child, run_trial
from tests.runtimes.models import GOLDEN, bundle_folder, linear, lookup, step


@pytest.fixture
def folder(tmp_path):
    return bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()])


def test_golden_rows_that_come_out_right_pass(folder):
    found = run_trial(folder)
    assert found.passed
    assert found.rows == 2


def test_golden_rows_that_come_out_wrong_are_reported_with_row_and_field(tmp_path):
    wrong = GOLDEN.replace(b"12.0", b"12.5")
    found = run_trial(bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()], wrong))
    assert not found.passed
    assert found.worst_row == 0
    assert "field 'y'" in found.reason


def test_rows_without_answers_only_have_to_run(tmp_path):
    bare = b'[{"in.x": [1, 2, 3]}]'
    assert run_trial(bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()], bare)).passed


def test_a_child_gives_the_outputs_of_any_rows(folder):
    rows = Columns.of(OpenBundle(folder).input, {"x": np.ones((4, 3), np.float32)})
    assert predict_in_child(folder, rows).arrays["y"].tolist() == [[6.0]] * 4


def test_rows_of_another_schema_are_the_callers_fault(folder):
    rows = Columns.of(Schema.parse({"z": "float32"}), {"z": np.ones(4, np.float32)})
    with pytest.raises(BadInput, match="pipeline 'demo' takes"):
        predict_in_child(folder, rows)


def test_a_model_that_does_not_load_is_a_runtime_failure_with_its_reason(tmp_path):
    with pytest.raises(RuntimeFailed, match="model 'linear' does not load"):
        run_trial(bundle_folder(tmp_path, {"linear.onnx": b"junk"}, [step()]))


def test_a_model_that_gives_up_on_its_golden_rows_is_a_runtime_failure(tmp_path):
    spec = step(input={"x": "int64"}, output={"y": "float32"})
    golden = b'[{"in.x": 99, "out.y": 1.0}]'
    with pytest.raises(RuntimeFailed, match="model 'linear'"):
        run_trial(bundle_folder(tmp_path, {"linear.onnx": lookup()}, [spec], golden))


def test_a_child_that_takes_too_long_is_stopped(folder):
    begun = time.monotonic()
    with pytest.raises(RuntimeFailed, match=r"did not answer its trial within 0\.05 s"):
        run_trial(folder, 0.05)
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "by signal SIGSEGV"),
        ("import sys; sys.exit('out of luck')", "with exit code 1: …out of luck"),
        ("print('hello')", "gave no answer that reads"),
        ("print('{}'); print('junk')", "columns that do not read"),
    ],
)
def test_a_child_that_dies_or_talks_nonsense_is_a_runtime_failure(folder, tmp_path, monkeypatch, fault, reason):
    (tmp_path / "faulty_child.py").write_text(f"def main(*_):\n    {fault}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trial, "_MODULE", "faulty_child")
    with pytest.raises(RuntimeFailed, match=reason):
        run_trial(folder)


PROBE = """
import resource as r, socket, sys
def refused(what, *arguments):
    try:
        what(*arguments)
    except OSError:
        return True
    return False
def main(folder, times, environments, timeout_s):
    print([r.getrlimit(limit)[1] for limit in (r.RLIMIT_CORE, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE)])
    print(open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0])
    print(open("/proc/self/oom_score_adj").read().strip())
    print(refused(socket.socket), refused(open, "/etc/hostname"), refused(open, f"{folder}/pipeline.json"))
"""


def test_the_child_is_bound_before_it_opens_the_bundle(folder, tmp_path, monkeypatch):
    (tmp_path / "probing_child.py").write_text(PROBE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trial, "_MODULE", "probing_child")
    command = trial._command(OpenBundle(folder), 5.0, tmp_path, twice=False)
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["[0, 65536, 256]", "1", "1000", "True True False"]


def test_no_secret_of_the_environment_reaches_the_child(monkeypatch):
    monkeypatch.setenv("EDGEPACK_TOKEN", "s3cret")
    monkeypatch.setenv("EDGEPACK_PROVIDERS", "CPUExecutionProvider")
    assert "EDGEPACK_TOKEN" not in trial._variables()
    assert trial._variables()["EDGEPACK_PROVIDERS"] == "CPUExecutionProvider"


def test_the_folder_one_stands_in_cannot_shadow_our_modules(folder, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert run_trial(folder).passed
