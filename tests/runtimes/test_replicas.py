"""Several processes of one step: which takes a request, what becomes of the others when one dies."""

from __future__ import annotations

import os
import signal
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from columns.columns import Columns
from columns.raw_tensors import decode_tensors, encode_tensors
from columns.schema import Schema
from columns.values import object_array
from edgepack.errors import BadInput, RuntimeFailed, Unreachable
from runtimes.onnx import OnnxRuntime
from runtimes.pipeline import LoadedPipeline
from runtimes.protocol import TensorRuntime
from runtimes.replicas import Replicas
from runtimes.worker import Job, Limits
from tests.edge_agent.served import until
from tests.runtimes.environments import numpy_environment
from tests.runtimes.models import bundle_folder, identity, linear, lookup, step
from tests.runtimes.python_steps import HELD_UP, held_up

STEP = f"""\
{HELD_UP}
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
{textwrap.indent(HELD_UP, "    ")}
    time.sleep(float(input_data["x"][0, 0]))
    return {{"y": np.full(len(input_data["x"]), os.getpid(), dtype=np.int64)}}
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two workers whose answer is their process; the value of a row is how long it takes, in seconds."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "step.py").write_text(STEP)
    takes, gives = Schema.parse({"x": "list<float32>[1]"}), Schema.parse({"y": "int64"})
    job = Job("prepare", "step", folder, takes, gives, (numpy_environment(),))
    replicas = Replicas.start(job, Limits(request_s=60.0), 2, scratch=folder / "scratch")
    yield replicas
    replicas.close()


def ask(replicas, seconds=0.0, **how):
    columns = Columns.of(replicas.job.input, {"x": np.full((1, 1), seconds, np.float32)})
    return int(replicas.infer(columns, **how).arrays["y"][0])


def until_all_are_ready(replicas):
    until(lambda: all(worker.pid is not None for worker in replicas.workers))


def until_all_are_at_work(replicas, waiting=0):
    until(lambda: not replicas._free and len(replicas._change._waiters) == waiting)


def kill(worker):
    """Kill a worker's process, and wait until that was noticed."""
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: worker.pid != pid)


def test_requests_at_once_run_in_different_processes(pair):
    with ThreadPoolExecutor(2) as threads:
        with held_up(pair.job.model):
            running = [threads.submit(ask, pair) for _ in range(2)]
            until_all_are_at_work(pair)
        answers = [each.result() for each in running]
    assert set(answers) == {worker.pid for worker in pair.workers}
    assert os.getpid() not in answers


def test_the_one_that_answered_last_is_asked_first(pair):
    assert len({ask(pair) for _ in range(5)}) == 1


def test_a_request_that_finds_both_at_work_waits_for_the_first_to_be_free(pair):
    with ThreadPoolExecutor(3) as threads:
        with held_up(pair.job.model):
            running = [threads.submit(ask, pair) for _ in range(3)]
            until_all_are_at_work(pair, waiting=1)
        answers = [each.result() for each in running]
    assert len(answers) == 3
    assert len(set(answers)) == 2


def test_a_request_that_finds_none_free_in_its_time_is_told_to_come_back(pair):
    with ThreadPoolExecutor(2) as threads:
        with held_up(pair.job.model):
            slow = [threads.submit(ask, pair) for _ in range(2)]
            until_all_are_at_work(pair)
            with pytest.raises(Unreachable, match="busy with other requests"):
                ask(pair, deadline_s=0.1)
        assert len({each.result() for each in slow}) == 2


def test_one_that_is_killed_costs_its_own_request_alone_and_comes_back(pair):
    until_all_are_ready(pair)
    victim = pair.workers[0]
    restarts, seen, stop = victim.restarts, [], threading.Event()

    def load():
        while not stop.is_set():
            try:
                seen.append(ask(pair, 0.01))
            except Unreachable as error:
                seen.append(str(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    until(lambda: len(seen) > 20)
    kill(victim)
    until_all_are_ready(pair)
    stop.set()
    for thread in threads:
        thread.join()
    refused = [each for each in seen if isinstance(each, str)]
    assert len(refused) <= 1  # it may have been between two requests
    assert all("was stopped: it ended by signal SIGKILL" in each for each in refused)
    assert victim.restarts == restarts + 1
    assert pair.workers[1].restarts == 0
    assert ask(pair) in {worker.pid for worker in pair.workers}


def test_while_none_is_ready_a_request_is_refused_with_the_reason_and_the_time(pair):
    until_all_are_ready(pair)
    with held_up(pair.job.model):
        for worker in pair.workers:
            kill(worker)
        with pytest.raises(Unreachable, match="step 'prepare' was stopped") as caught:
            ask(pair)
    assert caught.value.retry_after_s > 0
    until_all_are_ready(pair)


def test_one_that_does_not_load_ends_the_others_and_says_why(tmp_path):
    (tmp_path / "step.py").write_text("raise ValueError('no such model')\n" + STEP)
    schema = Schema.parse({"x": "list<float32>[1]"})
    job = Job("prepare", "step", tmp_path, schema, Schema.parse({"y": "int64"}), (numpy_environment(),))
    with pytest.raises(RuntimeFailed, match="no such model"):
        Replicas.start(job, Limits(), 2, scratch=tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


# Native engines


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    """A native step in two processes."""
    folder = bundle_folder(tmp_path_factory.mktemp("native"), {"linear.onnx": linear()}, [step()])
    loaded = LoadedPipeline.open(folder, replicas=2)
    yield loaded
    loaded.close()


def test_a_native_step_with_replicas_runs_in_confined_processes_of_its_own(native):
    assert [worker.replica for worker in native.workers] == [0, 1]
    assert len({worker.pid for worker in native.workers} | {os.getpid()}) == 3
    assert all("rlimits" in worker.sandbox and worker.pss_bytes > 1 << 20 for worker in native.workers)
    assert native.providers["linear"].used == ("CPUExecutionProvider",)


def test_a_native_step_answers_rows_and_tensors_as_in_this_process(native, tmp_path):
    (tmp_path / "linear.onnx").write_bytes(linear())
    here = OnnxRuntime.load(tmp_path / "linear.onnx", step())
    assert isinstance(native.tensors, TensorRuntime)
    assert native.tensors.tensor_inputs == here.tensor_inputs
    assert native.tensors.tensor_outputs == here.tensor_outputs
    rows = np.random.default_rng(1).normal(size=(40_000, 3)).astype(np.float32)
    for count in (1, len(rows)):
        given = {"x": rows[:count]}
        outcome = native.infer(Columns(native.input, given, count))
        expected = here.infer(given, count)["y"]
        assert np.array_equal(outcome.outputs["y"], expected)
        assert np.array_equal(native.tensors.infer_tensors(given)["y"], expected)


def test_what_a_native_step_refuses_is_the_same_error_from_another_process(tmp_path):
    spec = step("lookup", input={"x": "int64"}, output={"y": "float32"})
    folder = bundle_folder(tmp_path, {"lookup.onnx": lookup()}, [spec], b"[]")
    said = []
    for replicas in (1, 2):
        loaded = LoadedPipeline.open(folder, replicas=replicas)
        with pytest.raises(BadInput) as caught:
            loaded.infer(Columns.of(loaded.input, {"x": np.array([7])}))
        said.append(str(caught.value))
        loaded.close()
    assert said[0] == said[1]


def test_lists_of_different_length_are_the_clients_fault_there_too(tmp_path):
    spec = step("echo", input={"x": "list<list<float32>>"}, output={"y": "list<list<float32>>"})
    folder = bundle_folder(tmp_path, {"echo.onnx": identity("float32", ["n", "a", "b"])}, [spec], b"[]")
    loaded = LoadedPipeline.open(folder, replicas=2)
    for rows, said in (([[[1.0, 2.0], [3.0]]], None), ([[[1.0], [3.0]]], [[[1.0], [3.0]]])):
        given = Columns(loaded.input, {"x": object_array(rows)}, 1)
        if said:
            assert loaded.infer(given).outputs["y"].tolist() == said
        else:
            with pytest.raises(BadInput, match="its lists are not equally long") as caught:
                loaded.infer(given)
            assert caught.value.field == "x"
    loaded.close()


def test_text_tensors_travel_as_they_are(tmp_path):
    spec = step("echo", input={"x": "list<string>[2]"}, output={"y": "list<string>[2]"})
    folder = bundle_folder(tmp_path, {"echo.onnx": identity("string", ["n", 2])}, [spec], b"[]")
    loaded = LoadedPipeline.open(folder, replicas=2)
    given = np.array([["a", "ü€"]], dtype=object)
    assert loaded.tensors.infer_tensors({"x": given})["y"].tolist() == [["a", "ü€"]]
    loaded.close()


def test_a_native_process_that_is_killed_costs_its_own_request_alone(native):
    until_all_are_ready(native._steps[0].replicas)
    os.kill(native.workers[1].pid, signal.SIGKILL)
    refused = 0
    for _ in range(20):
        try:
            native.infer(Columns(native.input, {"x": np.ones((1, 3), np.float32)}, 1))
        except Unreachable:
            refused += 1
    assert refused <= 1
    until_all_are_ready(native._steps[0].replicas)


def test_the_trial_of_a_bundle_loads_each_model_once(tmp_path):
    from bundle.pipeline import Resources
    from runtimes.trial import run_trial

    folder = bundle_folder(tmp_path, {"linear.onnx": linear()}, [step()], resources=Resources(replicas=2))
    assert run_trial(folder).passed
    loaded = LoadedPipeline.open(folder)
    assert (loaded.replicas, len(loaded.workers)) == (2, 2)
    loaded.close()


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "<i8", "|u1", "|b1"])
def test_tensors_of_any_shape_come_back_from_their_bytes(dtype):
    given = {f"t{len(shape)}": np.ones(shape, dtype=dtype) for shape in ((), (0,), (3, 2), (1, 2, 3))}
    found = decode_tensors(b"".join(encode_tensors(given)))
    assert {name: (each.shape, each.dtype) for name, each in found.items()} == {
        name: (each.shape, each.dtype) for name, each in given.items()
    }
    assert all(np.array_equal(found[name], given[name]) for name in given)


def test_damaged_tensors_are_refused_and_never_read_beyond_their_body():
    whole = b"".join(encode_tensors({"x": np.arange(6, dtype=np.float32), "t": object_array(["a", "b"])}))
    random = np.random.default_rng(5)
    for _ in range(2000):
        data = bytearray(whole[: random.integers(0, len(whole) + 1)] if random.random() < 0.3 else whole)
        for _ in range(random.integers(1, 4)):
            if data:
                data[random.integers(0, len(data))] = random.integers(0, 256)
        try:
            found = decode_tensors(bytes(data))
        except BadInput:
            continue
        assert all(isinstance(each, np.ndarray) for each in found.values())
