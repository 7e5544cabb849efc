"""`edgepack serve` and `edgepack infer` as a user runs them: real processes, real ports, real signals."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests

from edgepack.commands.serve import curl_line
from tests.runtimes.models import linear

PROGRAM = [sys.executable, "-c", "from edgepack.launch import edgepack; edgepack()"]


class Serve:
    """A running `edgepack serve`."""

    def __init__(self, *arguments, stdin=subprocess.DEVNULL, **environment):
        self.process = subprocess.Popen(
            [*PROGRAM, "serve", *map(str, arguments)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._killer = threading.Timer(300, self.process.kill)  # of a module, on a busy machine
        self._killer.start()
        self.lines = []
        while not self.lines or not self.lines[-1].startswith("Ctrl-C"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            self.lines.append(line.rstrip("\n"))

    @property
    def url(self):
        return self.lines[0].split(" on ")[1].split()[0]

    @property
    def try_lines(self):
        return [line.removeprefix("try it: ") for line in self.lines if line.startswith("try it: ")]

    def end(self, number=signal.SIGINT):
        """Signal it; returns exit code and what it said on standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        self._killer.cancel()
        return self.process.returncode, said


def run(*arguments, **more):
    return subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=100, **more)


def one_line(result):
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr.strip()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "lin.onnx").write_bytes(linear())
    (folder / "tenfold.onnx").write_bytes(linear(factor=10.0))
    return folder


@pytest.fixture(scope="module")
def serve(models, tmp_path_factory):
    serve = Serve(models / "lin.onnx", "--port", 0, "--data", tmp_path_factory.mktemp("data"))
    yield serve
    assert serve.end()[0] == 130


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"x": [1, 2, 3]}, {"x": [0, 0, 0]}]')
    return path


def test_the_printed_curl_line_gives_an_answer(serve):
    (line,) = serve.try_lines
    if shutil.which("curl"):
        answer = json.loads(subprocess.run(line, shell=True, capture_output=True, check=True).stdout)
    else:
        _, _, url, _, header, _, body = shlex.split(line)
        answer = requests.post(url, data=body, headers=[header.split(": ")]).json()
    assert "y" in answer[0]["out"]


def test_an_answered_row_is_in_the_log(serve):
    answer = requests.post(f"{serve.url}/infer", json=[{"x": [1, 1, 1]}], headers={"X-Request-Id": "row-1"}, timeout=60)
    assert answer.status_code == 200
    logged = requests.post(f"{serve.url}/logs", timeout=60).json()
    assert "row-1" in [row["metadata"]["request_id"] for row in logged]


def test_infer_prints_one_line_a_row(serve, rows):
    result = run("infer", rows, "--url", serve.url)
    assert result.returncode == 0, result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()] == [{"y": [12.0]}, {"y": [0.0]}]


def test_infer_reads_standard_input_and_prints_whole_answers_as_json(serve, rows):
    result = run("infer", "-", "--url", serve.url, "--pipeline", "lin", "--json", input=rows.read_text())
    assert [row["out"] for row in json.loads(result.stdout)] == [{"y": [12.0]}, {"y": [0.0]}]


def test_infer_sends_the_inputs_of_golden_rows(serve, tmp_path):
    (tmp_path / "golden.json").write_text('[{"in.x": [1, 2, 3], "out.y": [12.0]}]')
    result = run("infer", tmp_path / "golden.json", "--url", serve.url)
    assert json.loads(result.stdout) == {"y": [12.0]}


def test_infer_sends_an_arrow_file(serve, tmp_path):
    import pyarrow as pa

    table = pa.table({"x": pa.array([[1, 2, 3]], pa.list_(pa.float32(), 3))})
    with pa.ipc.new_file(tmp_path / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    result = run("infer", tmp_path / "rows.arrow", "--url", serve.url)
    assert json.loads(result.stdout) == {"y": [12.0]}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["ROWS", "--pipeline", "other"], 2, "'lin'"),
        (["absent.json"], 2, "'absent.json' do not read: No such file"),
        (["BAD"], 2, "'x'"),
        (["BOMB"], 2, "depth"),
        (["/dev/zero"], 2, "rows '/dev/zero' are more than 512 MiB: send fewer at once"),
        (["ROWS", "--url", "http://127.0.0.1:1"], 1, "no agent answers at http://127.0.0.1:1/infer"),
        (["ROWS", "--url", "nonsense://"], 2, "is no URL"),
    ],
)
def test_infer_ends_with_one_line_when_it_cannot(serve, rows, tmp_path, arguments, code, said):
    (tmp_path / "bad.json").write_text('[{"x": [1]}]')
    (tmp_path / "bomb.json").write_text('[{"in.x": ' + "[" * 100_000)
    names = {"ROWS": rows, "BAD": tmp_path / "bad.json", "BOMB": tmp_path / "bomb.json"}
    url = [] if "--url" in arguments else ["--url", serve.url]
    result = run("infer", *(names.get(each, each) for each in arguments), *url)
    assert result.returncode == code
    assert said in one_line(result)


def test_a_data_folder_in_use_ends_a_second_one_with_its_name(serve, models):
    data = serve.lines[0].split("data: ")[1].rstrip(")")
    result = run("serve", models / "lin.onnx", "--port", 0, "--data", data)
    assert result.returncode == 2
    assert data in one_line(result)
    assert str(serve.process.pid) in result.stderr


def test_a_busy_port_ends_it_with_the_port(models, tmp_path):
    model = tmp_path / "lin.onnx"
    model.write_bytes((models / "lin.onnx").read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        result = run("serve", model, "--port", port, "--data", tmp_path / "data")
    assert result.returncode == 2
    assert f"port {port}" in one_line(result)
    assert list(tmp_path.iterdir()) == [model], "neither data nor golden rows are written"


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_what_is_no_model_ends_it_before_anything_is_written(tmp_path, content):
    source = tmp_path / "model.onnx"
    if content is not None:
        source.write_bytes(content)
    result = run("serve", source, "--port", 0, "--data", tmp_path / "data")
    assert result.returncode == 2
    assert "model.onnx" in one_line(result)
    assert not (tmp_path / "data").exists()


def test_several_sources_are_several_pipelines_and_the_log_outlives_the_program(models, tmp_path):
    first = Serve(models / "lin.onnx", models / "tenfold.onnx", "--port", 0, "--data", tmp_path / "data")
    answer = requests.post(f"{first.url}/pipelines/tenfold", json=[{"x": [1, 1, 1]}], timeout=60)
    assert answer.json()[0]["out"] == {"y": [30.0]}
    assert requests.post(f"{first.url}/infer", json=[{"x": [1, 1, 1]}], timeout=60).status_code == 404
    assert all("/pipelines/" in line for line in first.try_lines)
    assert first.end(signal.SIGTERM) == (0, "")
    second = Serve(models / "tenfold.onnx", "--port", 0, "--data", tmp_path / "data")
    assert requests.get(f"{second.url}/pipelines", timeout=60).json()["pipelines"][0]["id"] == "tenfold"
    assert requests.post(f"{second.url}/infer", json=[{"x": [1, 1, 1]}], timeout=60).status_code == 200
    assert len(requests.post(f"{second.url}/logs", timeout=60).json()) == 2
    code, said = second.end()
    assert code == 130
    assert "Traceback" not in said


def test_two_sources_of_one_name_are_refused(models):
    result = run("serve", models / "lin.onnx", models / "lin.onnx")
    assert result.returncode == 2
    assert "pipeline 'lin'" in one_line(result)


def test_a_row_too_long_for_a_line_goes_to_a_file(tmp_path):
    line = curl_line("http://a/infer", "[" + "1," * 2000 + "1]", tmp_path / "row.json")
    assert shlex.split(line)[-1] == f"@{tmp_path / 'row.json'}"
    assert Path(tmp_path / "row.json").read_text().startswith("[1,1")
    assert shlex.split(curl_line("http://a/infer", '[{"it\'s": 1}]', tmp_path / "x"))[-1] == '[{"it\'s": 1}]'


def test_no_engine_keeps_an_id_of_this_machine_or_a_queue_of_events(models, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("XDG_", "ORT_"))]:
        monkeypatch.delenv(name)
    serve = Serve(models / "lin.onnx", "--port", 0, "--data", tmp_path / "data", HOME=str(tmp_path))
    assert requests.post(f"{serve.url}/infer", json=[{"x": [1, 1, 1]}], timeout=60).status_code == 200
    serve.end()
    assert {path.name for path in (tmp_path / ".cache").glob("*")} <= {"edgepack"}


def test_help_shows_an_example():
    for verb in ("serve", "infer"):
        result = run(verb, "--help")
        assert result.returncode == 0
        assert "Example:" in result.stdout
