from __future__ import annotations

import datetime
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from columns.columns import Columns
from columns.schema import Schema
from columns.values import object_array
from edgepack.errors import RuntimeFailed, Unreachable
from runtimes.sandbox import level_of_this_kernel
from runtimes.worker import Job, Limits, Worker
from tests.runtimes.environments import installed, interpreter, numpy_environment
from tests.runtimes.python_steps import HELD_UP, held_up

HEAD = "import numpy as np\nfrom mac.types import InferenceData\n"
DEF = "def process_data(input_data: InferenceData) -> InferenceData:\n"
SUM = f"{HEAD}{DEF}    return {{'y': input_data['x'].sum(axis=1)}}\n"
COMPUTING = "    print('it computes', flush=True)\n" + textwrap.indent(HELD_UP, "    ")
X, Y = {"x": "list<float32>[3]"}, {"y": "float32"}


@pytest.fixture(scope="session")
def site():
    return numpy_environment()


@pytest.fixture
def start(tmp_path, site):
    started = []

    def make(source: str | dict[str, str], takes=X, gives=Y, *, kind="step", limits=None, **options) -> Worker:
        folder = tmp_path / "step"
        for name, text in ({"step.py": source} if isinstance(source, str) else source).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        job = Job("prepare", kind, folder, Schema.parse(takes), Schema.parse(gives), (site,), options)
        started.append(Worker.start(job, limits or Limits(request_s=60.0), scratch=tmp_path / "scratch"))
        return started[-1]

    yield make
    for worker in started:
        worker.close()


def body(text: str) -> str:
    return f"{HEAD}{DEF}{text}"


def ask(worker, value=1.0, rows=1, **how):
    columns = Columns.of(worker.job.input, {"x": np.full((rows, 3), value, np.float32)})
    return worker.infer(columns, **how).arrays["y"].tolist()


def ask_until_it_answers(worker, within_s=60.0):
    deadline = time.monotonic() + within_s
    while True:
        try:
            return ask(worker)
        except Unreachable as error:
            assert time.monotonic() < deadline, error
            time.sleep(0.02)


def until_it_says(caplog, line, within_s=60.0):
    """Wait for a line that the step prints: what it prints is a sign of how far it is."""
    deadline = time.monotonic() + within_s
    while line not in caplog.messages:
        assert time.monotonic() < deadline, caplog.messages
        time.sleep(0.01)


def test_a_warm_worker_answers_rows(start):
    worker = start(SUM)
    assert ask(worker) == [3.0]
    assert ask(worker, 2.0, rows=1000) == [6.0] * 1000
    assert worker.pss_bytes > 1 << 20
    assert worker.sandbox == level_of_this_kernel()


@pytest.mark.parametrize("rows", [5_000, 200_000])
def test_large_columns_travel_both_ways(start, rows):
    worker = start(body("    return {'y': input_data['x'] * 2}\n"), gives={"y": "list<float32>[3]"})
    given = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    answer = worker.infer(Columns.of(worker.job.input, {"x": given}))
    assert (answer.arrays["y"] == given * 2).all()


def test_an_async_step_answers(start):
    source = f"import asyncio\n{HEAD}async {DEF}    await asyncio.sleep(0)\n    return {{'y': input_data['x'][:, 0]}}\n"
    worker = start(source)
    assert ask(worker, 7.0) == [7.0]
    assert ask(worker, 8.0) == [8.0]


def test_users_code_may_change_what_it_is_given(start):
    assert ask(start(body("    x = input_data['x']\n    x += 1\n    return {'y': x[:, 0]}\n"))) == [2.0]


def test_a_scalar_is_an_array_of_one_element(start):
    worker = start(body("    return {'y': np.float64(input_data['x'].sum())}\n"))
    assert ask(worker) == [3.0]
    with pytest.raises(RuntimeFailed, match="'y': 2 rows went in, a single value came out"):
        ask(worker, rows=2)


def test_all_kinds_of_columns_reach_the_step_and_come_back(start):
    kinds = {
        "text": "string",
        "gap": "float64?",
        "ragged": "list<int64>",
        "when": "timestamp[ms]",
        "day": "date32",
        "blob": "binary",
        "pair": "struct<a: int32, b: string?>",
        "flag": "bool",
        "wide": "list<list<float64>[2]>[2]",
        "odd": "list<float32?>",
    }
    worker = start(body("    return {'out_' + name: value for name, value in input_data.items()}\n"), kinds, {
        f"out_{name}": text for name, text in kinds.items()
    })  # fmt: skip
    values = {
        "text": ["a", "ü€"],
        "gap": [None, float("inf")],
        "ragged": [[1], [2, 3]],
        "when": [np.datetime64("2030-01-02T03:04:05.006"), np.datetime64("1969-12-31")],
        "day": [datetime.date(2030, 1, 2), datetime.date(1, 1, 1)],
        "blob": [b"\0\xff", b""],
        "pair": [{"a": 1, "b": None}, {"a": 2, "b": "x"}],
        "flag": [True, False],
        "wide": [[[1.5, 2], [3, 4]], [[5, 6], [7, float("nan")]]],
        "odd": [[None, 0.1], []],
    }
    given = Columns.of(worker.job.input, values)
    answer = worker.infer(given)
    for name in kinds:
        assert repr(answer.arrays[f"out_{name}"].tolist()) == repr(given.arrays[name].tolist()), name


def test_nulls_are_none_and_a_column_of_nulls_has_the_type_of_the_schema(start):
    source = body(
        "    x = input_data['x']\n"
        "    assert x.dtype == object and x.tolist() == [None, None], x\n"
        "    return {'y': [None, 2.5]}\n"
    )
    worker = start(source, {"x": "float64?"}, {"y": "float64?"})
    answer = worker.infer(Columns.of(worker.job.input, {"x": [None, None]}))
    assert answer.arrays["y"].tolist() == [None, 2.5]


def test_an_empty_answer_of_strings_and_lists_fits(start):
    worker = start(body("    return {'y': np.array(['a', 'b'])}\n"), gives={"y": "string"})
    assert ask(worker, rows=2) == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "gives", "message"),
    [
        ("{'y': [1.0]}", Y, "'y': 2 rows went in, 1 rows came out"),
        ("{'z': [1.0, 2.0]}", Y, "a field 'z', the schema has y"),
        ("{}", Y, "no field 'y': it has none"),
        ("[1.0, 2.0]", Y, "the answer is list, expected a dict of arrays"),
        ("{'y': np.ones((2, 4))}", {"y": "list<float32>[3]"}, r"'y' has shape \(2, 4\), the schema says \(2, 3\)"),
        ("{'y': np.array([1.5, 2.0])}", {"y": "int64"}, "'y' is float64, the schema says int64"),
        ("{'y': np.array([1, 300])}", {"y": "uint8"}, "1 to 300 do not fit uint8"),
        ("{'y': np.array([True, False])}", {"y": "float32"}, "'y' is bool, the schema says float32"),
        ("{'y': [None, 1.0]}", {"y": "float32"}, "a null, which the schema does not allow"),
        ("{'y': [1, 2]}", {"y": "string"}, "int for a string"),
        ("input_data['nothing']", Y, "KeyError: 'nothing'"),
        ("1 / 0", Y, "ZeroDivisionError: division by zero"),
        ("exit()", Y, "NameError"),
        ("__import__('sys').exit(3)", Y, "SystemExit: 3"),
        ("bytearray(4 << 30)", Y, r"out of memory: give the pipeline more under \[resources\] memory"),
    ],
)
def test_what_users_code_does_wrong_is_one_line_and_the_worker_lives_on(start, answer, gives, message):
    worker = start(body(f"    return {answer} if len(input_data['x']) == 2 else {{'y': [0]}}\n"), gives=gives)
    pid = worker.pid
    with pytest.raises(RuntimeFailed, match=f"^step 'prepare': .*{message}") as caught:
        ask(worker, rows=2)
    assert "\n" not in str(caught.value)
    assert worker.pid == pid
    assert worker.restarts == 0


def test_narrower_floats_and_integers_that_fit_are_taken(start):
    worker = start(body("    return {'y': np.array([1, 2]), 'z': np.array([0.1, 1e300])}\n"), gives={
        "y": "uint8", "z": "float32"
    })  # fmt: skip
    found = worker.infer(Columns.of(worker.job.input, {"x": np.ones((2, 3), np.float32)}))
    assert found.arrays["y"].tolist() == [1, 2]
    assert found.arrays["z"].tolist() == [np.float32(0.1), np.inf]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def other(): pass\n", "expected exactly one function process_data.*found 0"),
        (HEAD + DEF + "    pass\n" + DEF + "    pass\n", "found 2"),
        (HEAD + "def process_data(data: InferenceData) -> InferenceData:\n    pass\n", "its signature is process_data"),
        (HEAD + "def process_data(input_data):\n    pass\n", r"its signature is process_data\(input_data\), expected"),
        ("def broken(:\n", "SyntaxError"),
        ("import nothing_like_it\n" + SUM, "No module named 'nothing_like_it'"),
        ("raise ValueError('no luck today')\n" + SUM, "ValueError: no luck today"),
        ("import os; os._exit(4)\n" + SUM, "it ended with exit code 4"),
        ("import sys; print('last words', flush=True); import os; os._exit(4)\n" + SUM, "last words"),
    ],
)
def test_a_step_that_does_not_load_is_told_with_its_reason(start, source, message):
    with pytest.raises(RuntimeFailed, match=f"^model 'prepare' does not load in its worker: .*{message}") as caught:
        start(source)
    assert "\n" not in str(caught.value)


def test_a_step_that_never_finishes_loading_is_stopped(start):
    with pytest.raises(RuntimeFailed, match="did not answer in time"):
        start("while True: pass\n" + SUM, limits=Limits(start_s=0.5))


def test_modules_and_files_beside_a_step_are_found(start):
    files = {
        "deep/step.py": "import beside\nfrom pathlib import Path\n"
        + SUM.replace(".sum(axis=1)", "[:, 0] * beside.FACTOR")
        + "assert Path('numbers.txt').read_text() == (Path(__file__).parent.parent / 'numbers.txt').read_text()\n",
        "deep/beside.py": "FACTOR = 5\n",
        "numbers.txt": "7",
        ".hidden/step.py": SUM,
    }
    assert ask(start(files)) == [5.0]


def test_a_step_may_have_the_name_of_a_module_of_the_standard_library(start):
    assert ask(start({"statistics.py": SUM})) == [3.0]


def test_the_names_that_users_import_stand_on_the_path_of_workers_alone(start):
    start("import wallaroo\nimport mac.inference\n" + SUM)
    code = "import mac"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 1


def test_a_worker_that_is_killed_refuses_with_the_reason_and_then_answers_again(start):
    worker = start(HELD_UP + SUM)
    pid = worker.pid
    with held_up(worker.job.model):
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Unreachable, match=r"step 'prepare' .*by signal SIGKILL.*come back in 1 s") as caught:
            ask(worker)
    assert caught.value.retry_after_s is not None
    assert ask_until_it_answers(worker) == [3.0]
    assert worker.pid != pid
    assert worker.restarts == 1


def test_a_request_in_flight_is_refused_when_its_worker_dies(start, caplog):
    caplog.set_level("INFO", "edgepack.worker")
    worker = start(body(f"{COMPUTING}    return {{}}\n"))
    with ThreadPoolExecutor(1) as pool, held_up(worker.job.model):
        running = pool.submit(ask, worker)
        until_it_says(caplog, "prepare: it computes")
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(Unreachable, match="it ended by signal SIGKILL"):
            running.result(60)


def test_a_request_past_its_deadline_ends_the_worker_and_the_next_finds_a_new_one(start):
    worker = start(body("    while input_data['x'][0, 0] > 5: pass\n    return {'y': input_data['x'][:, 0]}\n"))
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="it did not answer in time"):
        ask(worker, 9.0, deadline_s=0.3)
    assert time.monotonic() - begun < 30  # it would compute for as long as 60 s
    assert ask_until_it_answers(worker) == [1.0]


def test_a_worker_that_keeps_dying_is_started_ever_more_slowly(start, caplog, monkeypatch):
    monkeypatch.setattr("runtimes.worker._SETTLED_S", 1000.0)
    worker = start(body("    import os; os._exit(1)\n"))
    for _ in range(4):
        while worker.pid is None:
            time.sleep(0.01)
        with pytest.raises(Unreachable, match="exit code 1"):
            ask(worker)
    while worker.pid is None:
        time.sleep(0.01)
    pauses = [record.getMessage().partition("starts again in ")[2] for record in caplog.records]
    assert pauses == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]
    assert worker.restarts == 4


def test_requests_that_wait_too_long_for_their_turn_are_told_to_come_back(start, caplog):
    caplog.set_level("INFO", "edgepack.worker")
    worker = start(body(f"{COMPUTING}    return {{'y': [0]}}\n"))
    with ThreadPoolExecutor(1) as pool:
        with held_up(worker.job.model):
            first = pool.submit(ask, worker)
            until_it_says(caplog, "prepare: it computes")
            with pytest.raises(Unreachable, match="busy"):
                ask(worker, deadline_s=0.2)
        assert first.result(60) == [0.0]


def test_many_threads_get_their_own_answers(start):
    worker = start(body("    return {'y': input_data['x'][:, 0]}\n"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda value: ask(worker, float(value), rows=value % 7 + 1), range(300)))
    assert found == [[float(value)] * (value % 7 + 1) for value in range(300)]


@pytest.mark.parametrize(
    "lie",
    [
        "b'junk' * 100",
        "b'EPW1' + (2).to_bytes(4, 'little') + (1 << 50).to_bytes(8, 'little') + b'{}'",
        "b'EPW1' + (2).to_bytes(4, 'little') + (4).to_bytes(8, 'little') + b'{}EPC1'",
        "b'EPW1' + (5).to_bytes(4, 'little') + bytes(8) + b'[1,2]'",
    ],
)
def test_a_worker_that_talks_nonsense_is_stopped_and_not_believed(start, lie):
    source = body(
        "    if input_data['x'][0, 0] > 5:\n"
        "        import os\n"
        "        for number in range(3, 256):\n"
        "            try:\n"
        f"                os.write(number, {lie})\n"
        "            except OSError:\n"
        "                pass\n"
        "    return {'y': input_data['x'][:, 0]}\n"
    )
    worker = start(source)
    with pytest.raises(Unreachable, match=r"does not read|do not read"):
        ask(worker, 9.0)
    assert ask_until_it_answers(worker) == [1.0]


def test_answers_of_another_schema_are_not_believed(start):
    """User-made code can reach the encoder in its own process; what it makes of that is checked here."""
    source = "import edgepack_worker.columns as c\nold = c.encode\n" + body(
        "    from edgepack_worker.types import parse\n"
        "    c.encode = lambda s, t, g, r: old({'q': parse('float64')}, {'q': 'float64'}, {'q': g['y']}, r)\n"
        "    return {'y': [1.0]}\n"
    )
    with pytest.raises(Unreachable, match="other columns than its schema has"):
        ask(start(source))


def test_what_users_code_prints_goes_to_the_log_and_is_bounded(start, caplog):
    caplog.set_level("INFO", "edgepack.worker")
    worker = start(body("    for n in range(5000): print('line', n)\n    return {'y': [0]}\n"))
    assert ask(worker) == [0.0]
    worker.close()  # what it has printed is read by then
    lines = [record.getMessage() for record in caplog.records]
    assert "prepare: line 3" in lines
    assert len(lines) < 100


def test_a_worker_has_a_temporary_folder_that_is_bounded_and_gone_afterwards(start, tmp_path):
    source = body(
        "    import tempfile\n"
        "    with open(tempfile.mkdtemp() + '/kept', 'wb') as file:\n"
        "        file.write(bytes(int(input_data['x'][0, 0]) << 20))\n"
        "    return {'y': [0]}\n"
    )
    worker = start(source, limits=Limits(scratch_bytes=5 << 20))
    assert ask(worker) == [0.0]
    worker._look_again = 0.0
    ask(worker, 3.0)
    worker._look_again = 0.0
    with pytest.raises(Unreachable, match="MiB in its temporary folder, 5 MiB and 10000 files are allowed"):
        ask(worker, 3.0)
    worker.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_worker_ends_with_its_parent(site, tmp_path):
    (tmp_path / "step.py").write_text(SUM)
    program = (
        "import sys, time; from pathlib import Path\n"
        "from columns.schema import Schema; from runtimes.worker import Job, Worker\n"
        f"job = Job('s', 'step', Path({str(tmp_path)!r}), Schema.parse({X!r}), Schema.parse({Y!r}), "
        f"(Path({str(site)!r}),))\n"
        f"worker = Worker.start(job, scratch=Path({str(tmp_path / 'scratch')!r})); print(worker.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = str(Path(__file__).parents[2])
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=root, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_closing_while_a_request_runs_refuses_it_and_leaves_no_thread(start, caplog):
    caplog.set_level("INFO", "edgepack.worker")
    worker = start(body(f"{COMPUTING}    return {{}}\n"))
    with ThreadPoolExecutor(1) as pool, held_up(worker.job.model):
        running = pool.submit(ask, worker)
        until_it_says(caplog, "prepare: it computes")
        worker.close()
        with pytest.raises(Unreachable):
            running.result(60)
    assert not [thread for thread in threading.enumerate() if "prepare" in thread.name]
    with pytest.raises(Unreachable):
        ask(worker)


def test_object_columns_of_one_row_repeated_are_whole_in_the_worker(start):
    worker = start(body("    return {'y': [len(v) for v in input_data['x']]}\n"), {"x": "string"}, {"y": "int64"})
    repeated = np.broadcast_to(object_array(["abc"]), (5,))
    answer = worker.infer(Columns(worker.job.input, {"x": repeated}, 5))
    assert answer.arrays["y"].tolist() == [3] * 5


@pytest.mark.parametrize(("version", "numpy"), [("3.9", "1.26.4"), ("3.10", "2.2.6"), ("3.13", "2.4.6")])
def test_a_worker_runs_in_the_interpreter_of_any_environment(tmp_path, version, numpy):
    python = interpreter(version)
    other = installed(f"numpy-{numpy}-for-{version}", f"numpy=={numpy}", python=python)
    (tmp_path / "step.py").write_text(
        "import sys\n" + SUM.replace("input_data['x']", "(input_data['x'] * sys.version_info[1])")
    )
    job = Job("old", "step", tmp_path, Schema.parse(X), Schema.parse(Y), (other,), python=Path(python))
    with Worker.start(job, scratch=tmp_path / "scratch") as worker:
        assert ask(worker) == [3.0 * int(version.split(".")[1])]
        assert set(ask(worker, rows=50_000)) == {3.0 * int(version.split(".")[1])}
        assert worker.sandbox == level_of_this_kernel()


def test_a_step_that_keeps_what_it_was_given_finds_it_unchanged(start):
    """Large columns lie in shared memory, which is used again: not when users' code still looks at it."""
    source = "KEPT = []\n" + body(
        "    KEPT.append(input_data['x'])\n    return {'y': np.full(len(KEPT[-1]), KEPT[0][0, 0])}\n"
    )
    worker = start(source)
    rows = 20_000
    assert {*ask(worker, 5.0, rows)} == {5.0}
    assert {*ask(worker, 6.0, rows)} == {5.0}
    assert {*ask(worker, 7.0, rows)} == {5.0}


def test_what_lies_in_shared_memory_is_copied_before_it_is_checked(start):
    """The answer stays what it was when the child goes on writing."""
    source = "import edgepack_worker.frames as f\n" + body("    return {'y': np.repeat(input_data['x'][:, 0], 1)}\n")
    worker = start(source)
    first = worker.infer(Columns.of(worker.job.input, {"x": np.full((30_000, 3), 1, np.float32)}))
    worker.infer(Columns.of(worker.job.input, {"x": np.full((30_000, 3), 2, np.float32)}))
    assert set(first.arrays["y"].tolist()) == {1.0}
