"""Saved pipelines that run without torch: equal to the original for many inputs, and each way back into the worker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.store import OpenBundle
from bundle.task import TOKENIZER
from edgepack.errors import BadInput
from packager.artifact import ModelArtifact
from packager.checks import Checklist
from packager.conversion import PIPELINE
from packager.environments import HUGGING_FACE, ready
from packager.frameworks import hugging_face_native
from packager.frameworks.hugging_face import PREFIX, REQUIREMENTS
from packager.frameworks.hugging_face_native import NATIVE
from packager.inspect import inspect_step
from packager.project import Project
from runtimes.sandbox import SHIM
from tests.frameworks.conftest import HERE, ONE_THREAD, Bundled
from tests.frameworks.test_doors_networks import serving
from tests.frameworks.test_hugging_face import project

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(600)]

TEXT, PICTURE, ZERO_SHOT = "text-classification", "image-classification", "zero-shot-classification"
ANSWERING = "question-answering"
IMAGE = "list<list<list<uint8>[3]>>"
WORDS = (
    *("the", "line", "stopped", "at", "noon", "a", "bearing", "of", "press", "4", "is", "warm", "why", "it"),
    *("unknown", "ÖL", "机械", "?", "[SEP]"),
    " \n ",
    "x" * 90,
)
TAKES = {
    TEXT: {"inputs": "string", "top_k": "int64?", "function_to_apply": "string?"},
    PICTURE: {"inputs": IMAGE, "top_k": "int64?"},
    "feature-extraction": {"inputs": "string"},
    ANSWERING: {
        **dict.fromkeys(("question", "context"), "string"),
        **dict.fromkeys(("top_k", "doc_stride", "max_answer_len", "max_seq_len"), "int64?"),
        **dict.fromkeys(("handle_impossible_answer", "align_to_words"), "bool?"),
    },
    ZERO_SHOT: {
        "inputs": "string",
        "candidate_labels": "list<string>",
        "hypothesis_template": "string?",
        "multi_label": "bool?",
    },
}
MANY = 60


def texts(draw: np.random.RandomState) -> list[str]:
    """Of no word to some more than the network takes."""
    return [" ".join(draw.choice(WORDS, size=draw.choice([0, 1, 3, 8, 20, 50, 70]))) for _ in range(MANY)]


def pictures(draw: np.random.RandomState) -> list[Any]:
    """Of many sizes; not of one or three rows, which the original takes for something else."""
    sizes = draw.randint(4, 80, (MANY // 2, 2))
    return [draw.randint(0, 256, (*size, 3)).tolist() for size in sizes]


def calls(task: str) -> list[dict[str, Any]]:
    """Rows as a user of the pipeline itself would ask them; an argument that is not given is not there."""
    draw = np.random.RandomState(len(task))
    if task == ANSWERING:
        return [question(draw, at, context) for at, context in enumerate(texts(draw))]
    rows: list[dict[str, Any]] = [{"inputs": each} for each in (pictures(draw) if task == PICTURE else texts(draw))]
    for at, row in enumerate(rows):
        if task in (TEXT, PICTURE) and at % 3:
            row["top_k"] = int(draw.randint(0, 4))
        if task == TEXT and at % 4:
            row["function_to_apply"] = str(draw.choice(["softmax", "sigmoid", "none"]))
        if task == ZERO_SHOT:
            row["candidate_labels"] = list(map(str, draw.choice(WORDS[:14], size=draw.randint(1, 5))))
            row.update({"multi_label": bool(at % 2)} if at % 3 else {"hypothesis_template": "it is {}, why?"})
    return rows


def question(draw: np.random.RandomState, at: int, context: str) -> dict[str, Any]:
    """About a context; most are read in windows of some kind, a few leave no room for any."""
    row: dict[str, Any] = {"question": " ".join(draw.choice(WORDS[:14], size=4)), "context": context}
    if at % 3:
        row.update(max_seq_len=int(draw.choice([24, 40, 64])), doc_stride=int(draw.choice([0, 4, 8])))
    if at % 4:
        row.update(align_to_words=bool(at % 2), max_answer_len=int(draw.randint(1, 9)))
    if at % 5 == 0:
        row.update(top_k=int(draw.randint(1, 4)), handle_impossible_answer=bool(at % 2))
    return row


def as_columns(task: str, found: Any) -> dict[str, Any]:
    """What a pipeline answered, by our fields."""
    if task == "feature-extraction":
        return {"output": found[0]}
    if task in (ZERO_SHOT, ANSWERING):
        return dict(found[0] if isinstance(found, list) else found)
    return {name: [each[name] for each in found] for name in ("label", "score")}


@pytest.fixture(scope="session")
def python(cache: Path) -> Path:
    return ready(HUGGING_FACE, cache, os.environ).python


@pytest.fixture
def native(pipelines: Path, bundled: Any) -> Callable[[str], Bundled]:
    """A pipeline of a task, packaged with every field that it takes natively and without golden rows."""

    def made(task: str) -> Bundled:
        def new(folder: Path) -> Path:
            place = project(pipelines / task, folder, PREFIX + task, TAKES[task])
            without_golden(place)
            return place

        return bundled(f"native-{task}", new)

    return made


def without_golden(place: Path) -> None:
    (place / "golden.json").unlink(missing_ok=True)
    toml = place / "edgepack.toml"
    toml.write_text(toml.read_text().partition("[golden]")[0])


@pytest.mark.parametrize("task", TAKES)
def test_a_native_pipeline_served_by_an_agent_answers_like_the_original(
    task: str, native: Any, pipelines: Path, python: Path, cache: Path, tmp_path: Path
) -> None:
    found: Bundled = native(task)
    assert found.step.runtime == "onnx" and found.step.worker is None
    assert not list(found.folder.glob("wheels/**/*.whl")), "nothing of torch travels"
    rows = calls(task)
    said = subprocess.run(
        [python, HERE / "ask_pipeline.py", task, pipelines / task],
        input=json.dumps(rows), capture_output=True, text=True, check=True, env={**os.environ, **ONE_THREAD},
    )  # fmt: skip
    answers = json.loads(said.stdout)
    good = [at for at, answer in enumerate(answers) if "refused" not in answer]
    assert len(good) > len(rows) / 2
    with serving(found, cache, tmp_path) as served:
        both = [
            served.post("/infer", complete(task, [rows[at] for at in part])) for part in (good, good[:1], good[-1:])
        ]
        for reply, part in zip(both, (good, good[:1], good[-1:]), strict=True):
            assert reply.status_code == 200, reply.text
            for row, at in zip(reply.json(), part, strict=True):
                check_row(row["out"], as_columns(task, answers[at]))
        for at in sorted(set(range(len(rows))) - set(good)):
            reply = served.post("/infer", complete(task, [rows[at]]))
            assert reply.status_code == 400 and "field" in reply.text, (rows[at], reply.text)


def complete(task: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the schema: what was not given is null."""
    return [{name: row.get(name) for name in TAKES[task]} for row in rows]


def check_row(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        if name in ("label", "labels", "sequence", "answer", "start", "end"):
            assert found[name] == wanted, (name, found, expected)
        else:
            np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", TAKES)
def test_the_bundle_of_a_native_pipeline_says_its_task_and_how_it_was_proven(task: str, native: Any) -> None:
    found: Bundled = native(task)
    assert found.step.task is not None and found.step.task.name == task
    assert (found.step.task.text is not None) == (found.folder / found.step.model / TOKENIZER).is_file()
    (report,) = found.parity["steps"].values()
    assert report["runtime"] == "onnx" and report["label_flips"] == 0 and report["max_rel"] <= 1e-5
    assert report["rows"] >= 9 and OpenBundle(found.folder).golden().outputs is not None


@pytest.fixture
def changed(pipelines: Path, cache: Path, tmp_path: Path) -> Callable[..., ModelArtifact]:
    """A pipeline inspected after its files were changed: `change` is given the folder."""

    def inspect(task: str, change: Callable[[Path], object], fields: Any = None, outputs: Any = None) -> ModelArtifact:
        place = project(pipelines / task, tmp_path / "p", PREFIX + task, fields, outputs)
        without_golden(place)
        change(place / "saved")
        opened = Project.open(place)
        return inspect_step(opened.steps[0], opened.root, Checklist(), cache)

    return inspect


def edit(name: str, **values: Any) -> Callable[[Path], object]:
    """A change to a JSON file of the pipeline."""

    def change(saved: Path) -> None:
        said = json.loads((saved / name).read_text())
        (saved / name).write_text(json.dumps({**said, **values}))

    return change


def slow_tokenizer(saved: Path) -> None:
    """One that transformers has in Python alone."""
    (saved / TOKENIZER).unlink()
    (saved / "special_tokens_map.json").unlink()
    words = {"<unk>": 0, "t@@": 1, "h@@": 2, "e": 3}
    (saved / "vocab.json").write_text(json.dumps(words))
    (saved / "merges.txt").write_text("#version: 0.2\n")
    (saved / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer", "unk_token": "<unk>"}))


def nothing(saved: Path) -> None:
    """The pipeline as it was saved."""


FALLS_BACK: dict[str, tuple[str, Callable[[Path], object], Any, str]] = {
    "an argument of the tokenizer": (
        TEXT,
        nothing,
        {"inputs": "string", "truncation": "bool"},
        "field 'truncation' goes to parts",
    ),
    "a tokenizer of Python code": (TEXT, slow_tokenizer, None, "its tokenizer CTRLTokenizer is Python code"),
    "another image processor": (
        PICTURE,
        edit("preprocessor_config.json", image_processor_type="EfficientNetImageProcessor"),
        None,
        "its image processor EfficientNetImageProcessor is not one",
    ),
    "texts cut off at their beginning": (
        ZERO_SHOT,
        edit("tokenizer_config.json", truncation_side="left"),
        None,
        "its tokenizer cuts texts off at their beginning",
    ),
    "a task that generates": ("summarization", nothing, None, "summarization has no native twin yet"),
}


@pytest.mark.parametrize("why", FALLS_BACK)
def test_what_has_no_native_twin_runs_in_a_worker_and_says_why(why: str, changed: Any) -> None:
    task, change, fields, said = FALLS_BACK[why]
    found: ModelArtifact = changed(task, change, fields)
    assert (found.spec.runtime, found.kind) == ("python", "hugging_face")
    assert said in (found.reason or "") and "\n" not in (found.reason or "")
    assert found.requirements == REQUIREMENTS and found.task is None


def test_a_pipeline_whose_proof_crashes_runs_in_a_worker(changed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face_native, "PIPELINE", replace(PIPELINE, module="convert.nowhere"))
    found: ModelArtifact = changed(TEXT, edit("config.json", note="not converted before"))
    assert found.spec.runtime == "python"
    assert str(found.reason).startswith("it cannot be proven natively: converting 'saved' ended with code 1")


SLOW = """
import json, sys, time, types
sys.path += sys.argv[1:3]
from convert.nets import hugging_face as job
turns = iter(range(10**6))
time.monotonic = lambda: next(turns) * 1000.0  # each look at the clock is a quarter of an hour later
job.original.answered = lambda task, pipeline, row: {"length": len(row["inputs"])}
asked = {"rows": sys.argv[3], "input": [["inputs", "string"]], "output": [["length", "int64"]]}
print(json.dumps(job._answered("text-classification", types.SimpleNamespace(tokenizer=None), asked)))
"""


def test_a_pipeline_is_proven_with_all_rows_however_slow_the_machine(cache: Path, tmp_path: Path) -> None:
    rows = [{"inputs": "x" * length} for length in (3, 1, 4, 1, 5)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    room = Path(hugging_face_native.__file__).parents[1]
    command = [ready(HUGGING_FACE, cache, os.environ).python, "-c", SLOW, room, SHIM, tmp_path / "rows.json"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(told) == [rows, [{"length": len(row["inputs"])} for row in rows]]


def test_several_labels_may_fit_a_text(changed: Any) -> None:
    found: ModelArtifact = changed(TEXT, edit("config.json", problem_type="multi_label_classification"), TAKES[TEXT])
    assert found.task is not None and found.task.scores == "sigmoid"


def test_the_files_of_a_tokenizer_say_what_it_does_and_not_tokenizer_json_alone(changed: Any) -> None:
    """A token that tokenizer_config.json adds is in the file that travels."""
    added = {
        "90": {
            "content": "press 4",
            "special": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
            "normalized": False,
        }
    }
    found: ModelArtifact = changed(TEXT, edit("tokenizer_config.json", added_tokens_decoder=added), TAKES[TEXT])
    if found.task is None:
        pytest.fail(found.reason or "")
    travels = json.loads(found.files[f"{found.model}/{TOKENIZER}"].read_text())
    assert "press 4" in json.dumps(travels["added_tokens"])


@pytest.mark.parametrize(
    "task, change, said",
    [
        (
            TEXT,
            lambda saved: (saved / TOKENIZER).write_text('{"version": "1.0"'),
            "does not load as a pipeline for text",
        ),
        (
            TEXT,
            lambda saved: (saved / "model.safetensors").write_bytes(b"short"),
            "does not load as a pipeline for text",
        ),
        (TEXT, edit("config.json", model_type="unheard-of"), "does not load as a pipeline for text"),
        (TEXT, edit("config.json", id2label={"0": "a", "1": "b", "2": "c"}), "does not load as a pipeline for text"),
        (
            PICTURE,
            edit("preprocessor_config.json", image_processor_type="Unheard"),
            "does not load as a pipeline for image",
        ),
    ],
)
def test_a_pipeline_that_does_not_load_is_refused_in_one_line(task: str, change: Any, said: str, changed: Any) -> None:
    with pytest.raises(BadInput, match=said) as refused:
        changed(task, change)
    assert "\n" not in str(refused.value)


def test_every_native_task_is_tried_here() -> None:
    assert set(NATIVE) - {"sentiment-analysis"} == set(TAKES), (
        "sentiment-analysis is text-classification by another name"
    )
    assert set(REQUIREMENTS) <= set(HUGGING_FACE.requirements)
